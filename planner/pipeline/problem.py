"""From names and options to one placement problem with every default resolved."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from planner.constraints import (
    Ground,
    PlacementConstraints,
    previous_document,
    resolve,
)
from planner.errors import TraceError, UsageError
from planner.instance import Objective, PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.manifest import exact_text
from planner.manifest.schema import InputFile, TraceInput
from planner.options import SolveOptions
from planner.pipeline.attention import Mode, attention_layout, group_notes
from planner.pipeline.feasibility import Feasibility
from planner.pipeline.nesting import nested_groups
from planner.pipeline.resolve import (
    PHASE_TRAFFIC,
    SINGLE,
    check_names,
    resolve_caps,
    resolve_endpoint,
    resolve_traffic,
)
from planner.pipeline.sources import (
    Source,
    TraceSource,
    find_trace,
    model_record,
    topology_record,
    trace_record,
    workload_of,
)
from planner.topology.graph import ClusterTopology
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from planner.traffic.base import TRAFFIC
from planner.workload.counts import CountsTable, inline_counts
from planner.workload.memory import MemoryBill
from planner.workload.memory_terms import all_reduce_bytes
from planner.workload.messages import message_bytes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.presets import fitting_preset, load_model, require_fit
from planner.workload.split import HomesReport, split_parts
from planner.workload.tokens import RoutingTrace, require_router_order
from planner.workload.trace import Trace, load_trace

DEFAULT_TRACE = "tiny-moe"
TraceLike = str | Path | Mapping[str, Any] | TraceSource
"""``FILE[#WORKLOAD][:WEIGHT[:MODE[:PHASE]]]``, a bundled name or inline counts, or
these resolved with their settings."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An instance together with where it comes from.

    Attributes
    ----------
    option_values
        Every option in force, defaults resolved; recorded in the manifest.
    headline
        One sentence: what is planned, on what, with which groups.
    notes
        Sentences for the reader: what was assumed, taken or ignored.
    trace_records, homes
        Per workload: the manifest's record, and how its tokens were homed.
    """

    instance: PlacementInstance
    options: SolveOptions
    option_values: dict[str, Any]
    headline: str
    topology_record: InputFile
    model_record: InputFile
    trace_records: tuple[TraceInput, ...]
    homes: tuple[HomesReport, ...]
    routing: str
    feasibility: Feasibility
    notes: tuple[str, ...]

    @property
    def bill(self) -> MemoryBill:
        """What each GPU holds, term by term."""
        return self.feasibility.own.bill


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was asked for, before anything is loaded."""

    topology: Source
    model: Source | None = None
    traces: Sequence[TraceLike] = ()
    base: Path


def trace_list(
    given: TraceLike | Sequence[TraceLike] | None,
) -> tuple[TraceLike, ...]:
    """Return the traces of a call that may name none, one or several."""
    if given is None:
        return ()
    if isinstance(given, str | Path | Mapping | TraceSource):
        return (given,)
    return tuple(given)


def build_problem(
    sources: Sources,
    options: SolveOptions,
    *,
    slots: int | None = None,
    groups: Sequence[Sequence[str]] | None = None,
) -> Problem:
    """Load the inputs, resolve every default and check what can be checked.

    Parameters
    ----------
    slots
        Slots per GPU of a given plan; None lets the options decide.
    groups
        Names of the GPUs of each DP rank of a given plan; None lets them be chosen.

    Raises
    ------
    InputError
        For a bad file or value.
    InfeasibleError
        If no plan fits: memory, slots, or a cap below its floor.
    """
    check_names(options)
    loaded = _load(sources, options)
    notes: list[str] = []
    layout = _layout(loaded, options, slots)
    if groups is not None:
        layout = _given_groups(loaded.topology, layout, groups)
    instance, feasibility, homes = _instance(loaded, options, slots, layout, notes)
    topology, kv_tokens = loaded.topology, feasibility.own.bill.kv_tokens
    notes.extend(f"assumed: {assumption}" for assumption in topology.assumptions)
    notes.extend(f"warning: {warning}" for warning in topology.warnings)
    return Problem(
        instance=instance,
        options=options,
        option_values=_values_in_force(options, instance, homes[0].policy, kv_tokens),
        headline=_headline(instance, given=bool(sources.traces)),
        topology_record=topology_record(sources.topology, sources.base),
        model_record=model_record(loaded.wanted, loaded.model, sources.base),
        trace_records=tuple(
            _trace_record(given, workload, report, sources.base)
            for given, workload, report in zip(
                loaded.traces, instance.workloads, homes, strict=True
            )
        ),
        homes=homes,
        routing=_routing(options, topology),
        feasibility=feasibility,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loaded:
    """Inputs, read and found to fit each other."""

    topology: ClusterTopology
    traces: tuple["_LoadedTrace", ...]
    wanted: Source
    model: MoEModelSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LoadedTrace:
    """A trace and where it is from; ``name`` is that of its workload."""

    place: TraceSource
    trace: Trace
    name: str


def _load(sources: Sources, options: SolveOptions) -> _Loaded:
    topology = load_topology(sources.topology)
    carried = workload_of(sources.topology)
    given = list(sources.traces) or [carried.get("trace") or DEFAULT_TRACE]
    traces = _named([_load_trace(each) for each in given])
    first = traces[0].trace
    wanted = sources.model or carried.get("model") or fitting_preset(first)
    model = load_model(wanted)
    if options.precision is not None:
        model = replace(model, precision=options.precision)  # type: ignore[arg-type]
    for each in traces:
        require_fit(each.trace, model)
    return _Loaded(topology=topology, traces=traces, wanted=wanted, model=model)


def _named(loaded: Sequence[tuple[TraceSource, Trace]]) -> tuple[_LoadedTrace, ...]:
    """Call every workload by its own name, numbered where a name comes twice."""
    names = [place.workload or place.name for place, _ in loaded]
    unique = [
        name if names.count(name) == 1 else f"{name}:{names[:at].count(name) + 1}"
        for at, name in enumerate(names)
    ]
    return tuple(
        _LoadedTrace(place=place, trace=trace, name=name)
        for (place, trace), name in zip(loaded, unique, strict=True)
    )


def _routing(options: SolveOptions, topology: ClusterTopology) -> str:
    return options.routing or topology.routing or "ecmp_fractional"


def _layout(
    loaded: _Loaded, options: SolveOptions, slots: int | None
) -> ParallelLayout:
    modes = [_mode(each, loaded.model, options)[0] for each in loaded.traces]
    return attention_layout(loaded.topology, loaded.model, options, modes, slots)


def _given_groups(
    topology: ClusterTopology, layout: ParallelLayout, groups: Sequence[Sequence[str]]
) -> ParallelLayout:
    """Return the layout with the groups of a plan, if it is of this cluster."""
    place = {gpu.id: index for index, gpu in enumerate(topology.gpus)}
    alike = len(groups) == layout.dp and len(groups[0]) == layout.tp
    if not alike or not all(gpu in place for group in groups for gpu in group):
        return layout
    made = tuple(tuple(place[gpu] for gpu in group) for group in groups)
    return replace(layout, attention_groups=made)


def _instance(
    loaded: _Loaded,
    options: SolveOptions,
    slots: int | None,
    layout: ParallelLayout,
    notes: list[str],
) -> tuple[PlacementInstance, Feasibility, tuple[HomesReport, ...]]:
    """Resolve workloads, see that a plan can exist, and make it one."""
    topology, model = loaded.topology, loaded.model
    weights = _weights([each.place.weight for each in loaded.traces])
    made = [
        _workload(each, loaded, options, layout, weight, notes)
        for each, weight in zip(loaded.traces, weights, strict=True)
    ]
    workloads = tuple(workload for workload, _ in made)
    feasibility = Feasibility(
        topology=topology,
        model=model,
        options=options,
        workloads=workloads,
        layout=layout,
        slots=slots,
    )
    setup = feasibility.check()
    notes.extend(group_notes(topology, layout))
    if layout.tp > 1:
        moved = all_reduce_bytes(model, layout.tp, options.batch_tokens)
        notes.append(
            f"attention groups of {layout.tp} GPUs: each moves {moved / 1e9:.3f} GB of "
            f"all-reduce over NVLink per {options.batch_tokens} tokens"
        )
    instance = PlacementInstance(
        topology=topology,
        routes=build_routes(topology, _routing(options, topology)),
        model=model,
        layout=layout,
        selection=options.selection,
        objective=Objective(
            name=options.objective,
            layers=options.layers,
            link_classes=options.link_classes,
            combine=options.combine,
        ),
        caps=resolve_caps(options, setup.lowest),
        slots_per_gpu=setup.slots_per_gpu,
        workloads=workloads,
        memory_bytes_G=setup.bill.total_G,
        memory_limit_G=setup.bill.limit_G,
        single=options.policy == SINGLE,
        unseen=options.plan_for == "unseen",
        nested_groups=nested_groups(options, model, layout),
        constraints=_constraints(loaded, layout, options),
    )
    return instance, feasibility, tuple(report for _, report in made)


def _constraints(
    loaded: _Loaded, layout: ParallelLayout, options: SolveOptions
) -> PlacementConstraints | None:
    ground = Ground(
        topology=loaded.topology,
        ep=layout.ep,
        experts=loaded.model.experts,
        layer_numbers=loaded.model.moe_layers,
    )
    given = options.constraints, options.previous, options.max_moves
    return resolve(ground, *given)


def _workload(
    given: _LoadedTrace,
    loaded: _Loaded,
    options: SolveOptions,
    layout: ParallelLayout,
    weight: Fraction,
    notes: list[str],
) -> tuple[Workload, HomesReport]:
    """Resolve the modes of one trace and split it into its parts."""
    mode, phase = _mode(given, loaded.model, options)
    if TRAFFIC.get(mode.traffic).chained and isinstance(given.trace, RoutingTrace):
        require_router_order(given.trace, mode.traffic)
    planning, holdout, report = split_parts(
        given.trace, layout, options.homes, options.holdout, phase
    )
    workload = Workload(
        name=given.name,
        traffic=mode.traffic,
        endpoint=resolve_endpoint(options, loaded.topology, mode.traffic, notes),
        message_bytes=mode.message_bytes,
        planning=planning,
        holdout=holdout,
        weight=weight,
    )
    return workload, report


def _mode(
    given: _LoadedTrace, model: MoEModelSpec, options: SolveOptions
) -> tuple[Mode, str]:
    """Return how the tokens of one trace travel, and their phase."""
    phase = given.place.phase or options.phase
    if phase not in PHASE_TRAFFIC:
        raise UsageError(f"phase {phase!r}: choose from {', '.join(PHASE_TRAFFIC)}")
    asked = given.place.traffic or (None if given.place.phase else options.traffic)
    counts = isinstance(given.trace, CountsTable)
    traffic = resolve_traffic(asked, phase, counts_only=counts)
    message = message_bytes(model, traffic, options.message_bytes)
    return Mode(traffic=traffic, message_bytes=message, counts=counts), phase


def _weights(given: Sequence[Fraction | None]) -> list[Fraction]:
    """Return weights that sum to 1; one that is not given counts as 1 before."""
    raw = [Fraction(1) if weight is None else weight for weight in given]
    return [weight / sum(raw) for weight in raw]


def _trace_record(
    given: _LoadedTrace, workload: Workload, report: HomesReport, base: Path
) -> TraceInput:
    recorded = trace_record(given.place, base)
    counts = isinstance(given.trace, CountsTable)
    return TraceInput(
        **recorded.model_dump(),
        workload=given.trace.workload if counts else None,  # type: ignore[union-attr]
        weight=exact_text(workload.weight),
        traffic=workload.traffic,
        phase=report.phase,
    )


def _load_trace(given: TraceLike) -> tuple[TraceSource, Trace]:
    if isinstance(given, Mapping):
        given = TraceSource(name="inline", inline=given)
    place = given if isinstance(given, TraceSource) else find_trace(given)
    if place.inline is not None:
        return place, inline_counts(place.inline)
    if place.path is None:
        raise TraceError("names no file", where=place.name)
    return place, load_trace(place.path, workload=place.workload)


def _values_in_force(
    options: SolveOptions,
    instance: PlacementInstance,
    homes: str,
    kv_tokens: int,
) -> dict[str, Any]:
    """Every option with its default resolved, as plain JSON values."""
    layout = instance.layout
    values = asdict(options) | {
        "traffic": instance.traffic,
        "endpoint": instance.endpoint,
        "homes": homes,
        "routing": _routing(options, instance.topology),
        "precision": instance.model.precision,
        "layout": f"tp={layout.tp},dp={layout.dp},ep={layout.ep}",
        "redundant": instance.slot_count - instance.model.experts,
        "kv_tokens": kv_tokens,
        "threads": None
        if options.deterministic
        else options.threads or os.cpu_count() or 1,
    }
    if options.previous is not None:
        values["previous"] = previous_document(options.previous).model_dump()
    for name in ("link_classes", "message_bytes"):
        given = getattr(options, name)
        values[name] = None if given is None else list(given)
    return values


def _headline(instance: PlacementInstance, *, given: bool) -> str:
    layout, model = instance.layout, instance.model
    sets = f", {layout.sets} sets of it" if layout.sets > 1 else ""
    default = "" if given else " (bundled; name another with --trace)"
    return (
        f"{model.name} on {instance.topology.name}: {instance.layer_count} MoE layers "
        f"of {model.experts} experts, EP group of {layout.ep} GPUs{sets}, "
        f"{_slot_words(instance)}, {instance.selection}; "
        f"{_workload_words(instance)}{default}"
    )


def _slot_words(instance: PlacementInstance) -> str:
    if instance.single:
        return "one expert per GPU in all layers together"
    return f"{instance.slots_per_gpu} slots per GPU and layer"


def _workload_words(instance: PlacementInstance) -> str:
    several = len(instance.workloads) > 1
    words = [
        f"{load.traffic} / {load.endpoint} of {load.name}"
        + (f" (weight {float(load.weight):.3g})" if several else "")
        for load in instance.workloads
    ]
    return " and ".join(words) + (f", {instance.objective.combine}" if several else "")
