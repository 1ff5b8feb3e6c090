"""Replay a plan's trace and hold what moved against what was predicted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from planner import bundled
from planner.errors import ReplayMismatch, UsageError
from planner.executor.gating.rerouting import Rerouting
from planner.executor.precision.tolerance import TOLERANCES, Tolerance
from planner.executor.replay import replay as move
from planner.executor.result import OutputCheck
from planner.manifest import Manifest, read_manifest
from planner.manifest.schema import LayerPrediction, PartPrediction
from planner.pipeline.evaluating import plan_of
from planner.pipeline.predicted import LayerDigests, count_part, differences
from planner.pipeline.promised import HeldTerm, held_terms
from planner.pipeline.rerouting import (
    Change,
    ReroutedPart,
    predicted_again,
    rerouted,
)
from planner.verifier import Setting, settings_of
from planner.workload.parts import Part, TokenPart
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

if TYPE_CHECKING:
    from planner.executor.host import Host


PARTS = ("planning", "holdout", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedPart:
    """One part of the trace, moved.

    Attributes
    ----------
    transfers
        Transfers moved in both legs over all layers.
    pairs, links
        GPU pairs and link loads compared with the prediction, all equal: every
        ordered pair and every link, both legs, in every layer. Where choices were
        changed, the prediction is made again for the new ones.
    max_relative_error
        Greatest difference of an output from the unsharded float32 model's,
        relative; None without tensors.
    output_error, layer_error
        Its two parts: in what leaves the last layer, and in the routed experts'
        outputs of any layer.
    tolerance
        What the precision allows of each; None without tensors.
    memory
        What tensors held, term by term, none above what the plan promises; empty
        without tensors.
    ids_agreeing
        Share of expert ids that the model's router chose as recorded, or as decided
        before where choices were changed; None where routing was forced. In bf16
        and fp8 tokens go to the unsharded pass's experts, and this is what the
        router would have chosen.
    rerouted
        Loads and outputs before and after; None where nothing was changed.
    """

    part: str
    tokens: int
    transfers: int
    pairs: int
    links: int
    max_relative_error: float | None
    ids_agreeing: float | None
    seconds: float
    output_error: float | None = None
    layer_error: float | None = None
    tolerance: Tolerance | None = None
    memory: tuple[HeldTerm, ...] = ()
    rerouted: ReroutedPart | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """A replay in which everything agreed.

    Attributes
    ----------
    device
        Where tensors were: ``cpu`` or ``cuda``.
    change
        What choices were changed by on purpose; None: by nothing.
    worst_by_step
        While biases followed the loads: the greatest load of an expert over its
        layer's mean, after every step.
    rank
        This process's under ``distributed``: all ranks have the same report.
    """

    plan: str
    executor: str
    gating: str
    parts: tuple[ReplayedPart, ...]
    notes: tuple[str, ...]
    precision: str = "fp32"
    device: str = "cpu"
    change: Change | None = None
    worst_by_step: tuple[float, ...] = ()
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What is asked of a replay; the words are those of ``planner.replay``."""

    part: str = "both"
    executor: str = "auto"
    gating: str = "auto"
    precision: str = "fp32"
    device: str = "cpu"
    balance: str | None = None
    capacity_factor: float | None = None


def replay_here(
    path: Path,
    options: ReplayOptions,
    notes: Sequence[str] = (),
    host: "Host | None" = None,
) -> ReplayReport:
    """Replay in this process: all ranks, or the one of ``host``."""
    manifest = read_manifest(path)
    settings = settings_of(manifest, path.parent)
    mode = _gating(options.gating, manifest, options.executor)
    change = Change.of(options.balance, options.capacity_factor)
    text = _text(manifest) if mode == "real" else None
    found = parts_of_plan(options.part, manifest, settings)
    reroutings: Sequence[Rerouting | None] = [None] * len(found)
    worst: tuple[float, ...] = ()
    if change is not None:
        change.check_gating(mode)
        shown = [(setting, tokens) for _, setting, _, tokens in found]
        reroutings, worst = rerouted(change, shown, text, host)
    parts = []
    for (name, setting, predicted, tokens), rerouting in zip(
        found, reroutings, strict=True
    ):
        result = _moved(setting, tokens, options, text, rerouting, host)
        layers, beside = predicted.layers, None
        if rerouting is not None:
            layers, beside = predicted_again(setting, tokens, rerouting)
        done = _compared(name, layers, setting, tokens, result, options.precision)
        parts.append(replace(done, rerouted=beside))
    return ReplayReport(
        plan=str(path),
        executor=options.executor,
        gating=mode,
        precision=options.precision,
        device=options.device,
        parts=tuple(parts),
        notes=tuple(notes),
        change=change,
        worst_by_step=worst,
        rank=0 if host is None else host.hosted.start,
    )


def _gating(wanted: str, manifest: Manifest, executor: str) -> str:
    """Real gating needs the model's weights: only the bundled model has them."""
    trace = manifest.inputs.traces[0]
    alone = len(manifest.inputs.traces) == 1
    has_weights = alone and trace.path is None and trace.name in bundled.traces()
    if wanted == "real" and not has_weights:
        raise UsageError(
            "--gating real needs a model with weights, which only the bundled trace "
            "has; use --gating forced"
        )
    if wanted != "auto":
        return wanted
    return "real" if has_weights and executor != "counter" else "forced"


def parts_of_plan(
    wanted: str, manifest: Manifest, settings: Sequence[Setting]
) -> list[tuple[str, Setting, PartPrediction, TokenPart]]:
    """Return the parts to move, with what the manifest predicts of each."""
    if manifest.holdout is None and wanted == "holdout":
        raise UsageError(f"there is no held-out part: {manifest.holdout_reason}")
    chosen = []
    for at, setting in enumerate(settings):
        own = manifest.workloads[setting.name]
        unseen = manifest.holdout if at == 0 else own.holdout
        seen = (own.planning or manifest).prediction
        offered: list[tuple[str, PartPrediction, Part]] = [
            ("planning", seen, setting.parts.planning)
        ]
        if unseen is not None and setting.parts.holdout is not None:
            offered.append(("holdout", unseen.prediction, setting.parts.holdout))
        for name, predicted, part in offered:
            if not isinstance(part, TokenPart):
                raise UsageError(
                    "a counts table has no tokens to replay: check the plan with "
                    "planner verify, or plan on a token trace"
                )
            label = name if len(settings) == 1 else f"{setting.name} {name}"
            if wanted in ("both", name):
                chosen.append((label, setting, predicted, part))
    return chosen


def _text(manifest: Manifest) -> RoutingTrace:
    """Read the bundled trace with its text."""
    loaded = load_trace(bundled.traces()[manifest.inputs.traces[0].name])
    assert isinstance(loaded, RoutingTrace)
    return loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replayed:
    """What a back end moved, whatever it keeps of it."""

    layers: list[LayerDigests]
    seconds: float
    outputs: OutputCheck | None = None
    ids_agreeing: float | None = None
    memory: tuple[HeldTerm, ...] = ()


def _counted(setting: Setting, part: TokenPart) -> _Replayed:
    """Count by pair: a cluster may have too many GPUs for arrays of all pairs."""
    counted = count_part(setting, part, setting.manifest.selection)
    q = setting.routes.q
    return _Replayed(
        layers=[LayerDigests.of_figures(layer, q) for layer in counted.layers],
        seconds=counted.seconds,
    )


def _moved(
    setting: Setting,
    part: TokenPart,
    options: ReplayOptions,
    text: RoutingTrace | None,
    rerouting: Rerouting | None,
    host: "Host | None",
) -> _Replayed:
    """Move a part; ``text`` is there under real gating."""
    if options.executor == "counter" and text is None and rerouting is None:
        return _counted(setting, part)
    manifest = setting.manifest
    result = move(
        options.executor,
        "forced" if text is None else "real",
        plan=plan_of(manifest),
        part=part,
        layout=setting.layout,
        model_spec=setting.model,
        traffic=setting.traffic,
        selection=manifest.selection,
        endpoint=setting.endpoint,
        message_bytes=setting.message,
        routes=setting.routes,
        weights=bundled.tiny_moe_weights() if text is not None else None,
        token_ids=None if text is None else text.token_id_T,
        seq_ids=None if text is None else text.sequence_T,
        seed=manifest.provenance.seed,
        precision=options.precision,
        device=options.device,
        rerouting=rerouting,
        host=host,
    )
    return _Replayed(
        layers=LayerDigests.of_result(result),
        seconds=result.seconds,
        outputs=result.moved.outputs,
        ids_agreeing=result.ids_agreeing,
        memory=held_terms(setting, result.moved)
        if result.moved.outputs is not None
        else (),
    )


def _compared(
    name: str,
    predicted: Sequence[LayerPrediction],
    setting: Setting,
    part: TokenPart,
    moved: _Replayed,
    precision: str,
) -> ReplayedPart:
    """Compare every GPU pair and link of both legs with the prediction."""
    findings = differences(name, predicted, moved.layers)
    outputs, tolerance = moved.outputs, TOLERANCES[precision]
    if outputs is not None:
        findings += _too_far(name, outputs, precision)
    for term in moved.memory:
        findings += [f"{name} part: {finding}" for finding in term.findings]
    if findings:
        raise ReplayMismatch(findings)
    gpus, links = setting.layout.gpu_count, len(setting.topology.links)
    layers = len(predicted)
    return ReplayedPart(
        part=name,
        tokens=part.token_count,
        transfers=sum(layer.sent + layer.answered for layer in moved.layers),
        pairs=2 * layers * gpus * (gpus - 1),
        links=2 * layers * links,
        max_relative_error=None if outputs is None else outputs.max_relative_error,
        output_error=None if outputs is None else outputs.final_error,
        layer_error=None if outputs is None else outputs.layer_error,
        tolerance=None if outputs is None else tolerance,
        memory=moved.memory,
        ids_agreeing=moved.ids_agreeing,
        seconds=moved.seconds,
    )


def _too_far(name: str, outputs: OutputCheck, precision: str) -> list[str]:
    """Hold outputs against what the precision allows."""
    tolerance = TOLERANCES[precision]
    return [
        f"{name} part: {what} differ from the unsharded model's by {error:.2e}, "
        f"relative; the tolerance is {allowed:g} in {precision}"
        for what, error, allowed in (
            ("outputs", outputs.final_error, tolerance.outputs),
            ("outputs of routed experts", outputs.layer_error, tolerance.layers),
        )
        if not error <= allowed
    ]
