"""One plan under several selections: what each would move, beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import ReplayMismatch, UsageError
from planner.manifest import Manifest, read_manifest
from planner.manifest.schema import PartPrediction
from planner.pipeline.evaluating import plan_of
from planner.pipeline.predicted import (
    LayerDigests,
    count_part,
    counting_of,
    differences,
    figures_of,
)
from planner.pipeline.replaying import PARTS, parts_of_plan
from planner.verifier import Setting, settings_of
from planner.witness import figures
from planner.witness.figures import LayerFigures
from planner.workload.parts import TokenPart
from planner.workload.streaming import TokenStream
from planner.workload.tokens import require_router_order

SELECTIONS = ("nearest", "even", "weighted")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionFigures:
    """What one part of the trace would move under one selection.

    Attributes
    ----------
    part
        Of the plan's trace, or the name of another trace.
    predicted
        Whether this is the plan's own selection; its counts of every GPU pair and link
        were equal to the plan's prediction.
    transfers, between_domains
        Transfers of both legs over all layers, and those between domains.
    between_domains_share
        Their quotient; 0 where nothing moves.
    link_time_s, link_tokens
        The busiest link's, in the layer mode of the plan's objective (rule 23).
    gpu_load_mean, gpu_load_worst
        Max/mean of (token, expert) pairs per GPU: mean over layers, and the worst.
    """

    part: str
    selection: str
    predicted: bool
    tokens: int
    transfers: int
    between_domains: int
    between_domains_share: float
    link_time_s: float
    link_tokens: float
    gpu_load_mean: float
    gpu_load_worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """A plan's figures under several selections, part by part.

    Attributes
    ----------
    layers
        Layer mode of ``link_time_s`` and ``link_tokens``.
    """

    plan: str
    layers: str
    rows: tuple[SelectionFigures, ...]
    notes: tuple[str, ...]


def compare_selections(
    plan: str | Path,
    selections: Sequence[str],
    *,
    part: str = "both",
    trace: str | Path | None = None,
) -> SelectionReport:
    """Count a plan's trace, or another, under each selection.

    The counter counts, token by token; under the plan's own selection every GPU pair
    and link must come out as predicted.

    Parameters
    ----------
    trace
        A token trace to count instead of the plan's, all its rows of the plan's phase.
        It may be longer than memory holds: choices are read some rows at a time.

    Raises
    ------
    ReplayMismatch
        If the counts of the plan's own selection differ from its prediction.
    TraceError
        If ``trace`` is of another model or breaks rule 11.
    UsageError
        For another selection or part, or a plan on a counts table.
    """
    wanted = _checked(selections, part)
    path = Path(plan)
    manifest = read_manifest(path)
    settings = settings_of(manifest, path.parent)
    if trace is None:
        rows = _of_plan(parts_of_plan(part, manifest, settings), wanted)
    else:
        if part != "both":
            raise UsageError("--part is of the plan's trace: leave it out with --trace")
        rows = _of_trace(Path(trace), settings, wanted)
    return SelectionReport(
        plan=str(path),
        layers=manifest.objective.layers,
        rows=tuple(rows),
        notes=tuple(_notes(manifest, wanted, trace)),
    )


def _of_plan(
    parts: Sequence[tuple[str, Setting, PartPrediction, TokenPart]],
    selections: Sequence[str],
) -> list[SelectionFigures]:
    """Count the parts of the plan's own trace."""
    rows = []
    for name, setting, predicted, tokens in parts:
        for selection in selections:
            counted = count_part(setting, tokens, selection).layers
            own = selection == setting.manifest.selection
            if own:
                _require_predicted(name, predicted, counted, setting)
            rows.append(
                _row(name, selection, own, tokens.token_count, counted, setting)
            )
    return rows


def _of_trace(
    path: Path, settings: Sequence[Setting], selections: Sequence[str]
) -> list[SelectionFigures]:
    """Count another trace once through, under all selections together."""
    if len(settings) > 1:
        raise UsageError("--trace needs a plan of one workload, this has several")
    (setting,) = settings
    item = setting.manifest.inputs.traces[0]
    stream = TokenStream(path, setting.model)
    if setting.traffic == "direct":
        require_router_order(stream.trace, setting.traffic)
    countings = [counting_of(setting, selection) for selection in selections]
    tokens = 0
    for chunk in stream.chunks(
        setting.layout, setting.manifest.homes, item.phase or setting.options.phase
    ):
        tokens += chunk.token_count
        for counting in countings:
            counting.add(chunk)
    return [
        _row(path.stem, selection, False, tokens, figures_of(each, setting), setting)
        for selection, each in zip(selections, countings, strict=True)
    ]


def _checked(selections: Sequence[str], part: str) -> list[str]:
    """Return the selections without repetitions."""
    if part not in PARTS:
        raise UsageError(f"--part {part!r}: choose from {', '.join(PARTS)}")
    for selection in selections:
        if selection not in SELECTIONS:
            raise UsageError(
                f"--selections {selection!r}: choose from {', '.join(SELECTIONS)}"
            )
    if not selections:
        raise UsageError(f"--selections is empty: name some of {', '.join(SELECTIONS)}")
    return list(dict.fromkeys(selections))


def _require_predicted(
    name: str,
    predicted: PartPrediction,
    counted: Sequence[LayerFigures],
    setting: Setting,
) -> None:
    q = setting.routes.q
    found = [LayerDigests.of_figures(layer, q) for layer in counted]
    if findings := differences(name, predicted.layers, found):
        raise ReplayMismatch(findings)


def _row(
    name: str,
    selection: str,
    own: bool,
    tokens: int,
    counted: Sequence[LayerFigures],
    setting: Setting,
) -> SelectionFigures:
    manifest = setting.manifest
    legs = [leg for found in counted for leg in (found.transfers, found.combine)]
    transfers = sum(leg.total for leg in legs)
    between = sum(leg.between(setting.layout.domain_G) for leg in legs)
    values = figures.values(
        counted,
        setting.topology.links,
        setting.routes.q,
        setting.message,
        setting.options.link_classes,
    )
    loads = [float(figures.imbalance(found)) for found in counted]
    return SelectionFigures(
        part=name,
        selection=selection,
        predicted=own,
        tokens=tokens,
        transfers=transfers,
        between_domains=between,
        between_domains_share=between / transfers if transfers else 0.0,
        link_time_s=float(values["link_time"][manifest.objective.layers]),
        link_tokens=float(values["link_tokens"][manifest.objective.layers]),
        gpu_load_mean=sum(loads) / len(loads),
        gpu_load_worst=max(loads),
    )


def _notes(
    manifest: Manifest, selections: Sequence[str], trace: str | Path | None
) -> list[str]:
    """Say what makes selections equal, or unlike what they could be."""
    plan = plan_of(manifest)
    copied = any(
        np.bincount(slots_GJ[slots_GJ >= 0]).max(initial=0) > 1
        for slots_GJ in plan.slots_LGJ
    )
    if not copied:
        return ["every expert has one copy: selections cannot differ"]
    made_for = f"the plan is made for {manifest.selection}"
    if trace is not None:
        notes = [f"{made_for}; its prediction is of its own trace, not of this"]
    elif manifest.selection in selections:
        notes = [f"{made_for}, whose counts of GPU pairs and links are as predicted"]
    else:
        notes = [f"{made_for}: nothing here was held against its prediction"]
    if "weighted" in selections and not plan.split:
        notes.append("the plan holds no weights: weighted takes all copies equally")
    return notes
