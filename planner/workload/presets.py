"""Models by name or file, and which of them a trace fits (rule 11)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.errors import ModelError, TraceError
from planner.workload.counts import CountsTable
from planner.workload.known_models import KNOWN_MODELS
from planner.workload.model_file import parse_model, read_model
from planner.workload.model_spec import MoEModelSpec
from planner.workload.tokens import RoutingTrace

Trace = RoutingTrace | CountsTable


def preset_names() -> tuple[str, ...]:
    """Return the names of the known models."""
    return tuple(KNOWN_MODELS)


def load_model(source: str | Path | Mapping[str, Any]) -> MoEModelSpec:
    """Return a model by name, from a ``moe-model/1`` file, or from such a document.

    Raises
    ------
    ModelError
        If it is none of these or a value breaks a rule.
    """
    if isinstance(source, Mapping):
        return parse_model(source, where="model")
    name = str(source)
    if name in KNOWN_MODELS and not Path(name).is_file():
        return KNOWN_MODELS[name]
    if not Path(name).exists():
        raise ModelError(
            "is neither a known model nor a file",
            where="model",
            value=name,
            fix=f"choose from {', '.join(KNOWN_MODELS)} or give a moe-model/1 file",
        )
    return read_model(Path(name))


def fits(trace: Trace, model: MoEModelSpec) -> list[str]:
    """Return one sentence per fact that differs; empty if the trace fits."""
    found = []
    if trace.num_experts != model.experts:
        found.append(f"{trace.num_experts} experts, the model has {model.experts}")
    if trace.top_k != model.top_k:
        found.append(f"top-{trace.top_k}, the model chooses {model.top_k}")
    if trace.layer_numbers != model.moe_layers:
        found.append(
            f"MoE layers {ranges(trace.layer_numbers)}, the model's are "
            f"{ranges(model.moe_layers)}"
        )
    return found


def known_fits(trace: Trace) -> list[str]:
    """Return the names of the known models that the trace fits.

    Models of one shape are told apart by the model that the trace names, which then
    comes first.
    """
    found = [name for name, spec in KNOWN_MODELS.items() if not fits(trace, spec)]
    said = trace.model.lower()
    return sorted(found, key=lambda name: name not in said)


def fitting_preset(trace: Trace) -> str:
    """Return the name of the known model that the trace fits.

    Raises
    ------
    TraceError
        If there is none.
    """
    names = known_fits(trace)
    if not names:
        raise TraceError(
            f"fits no known model: {trace.num_experts} experts, top-{trace.top_k}, "
            f"MoE layers {ranges(trace.layer_numbers)}",
            where=place_of(trace),
            fix="give its moe-model/1 file with --model",
        )
    return names[0]


def require_fit(trace: Trace, model: MoEModelSpec) -> None:
    """Refuse a trace of another model.

    Raises
    ------
    TraceError
        With everything that differs, and the known model that would fit.
    """
    found = fits(trace, model)
    if found:
        names = known_fits(trace)
        raise TraceError(
            f"does not fit model {model.name}: {'; '.join(found)}",
            where=place_of(trace),
            fix=f"use --model {names[0]}" if names else "give the trace's own model",
        )


def place_of(trace: Trace) -> str:
    """Return the words that name a trace in a message."""
    if isinstance(trace, CountsTable):
        return f"{trace.path or 'inline counts'}#{trace.workload}"
    return str(trace.path)


def ranges(numbers: tuple[int, ...]) -> str:
    """Return ascending numbers as ``0-5, 8``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)
