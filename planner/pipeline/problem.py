"""From names and options to one placement problem with every default resolved."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from planner.errors import TraceError
from planner.instance import Objective, PlacementInstance
from planner.manifest import exact_text
from planner.manifest.schema import InputFile, TraceInput
from planner.options import SolveOptions
from planner.pipeline.groups import choose_layout, slots_per_gpu
from planner.pipeline.resolve import (
    check_caps,
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
from planner.workload.counts import CountsTable, inline_counts
from planner.workload.memory import MemoryBill, check_memory, memory_bill
from planner.workload.memory_terms import all_reduce_bytes
from planner.workload.messages import message_bytes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.presets import fitting_preset, load_model, require_fit
from planner.workload.split import HomesReport, split_parts
from planner.workload.trace import Trace, load_trace

DEFAULT_TRACE = "tiny-moe"


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
    home_ratio
        Max/mean tokens per home over the whole trace.
    """

    instance: PlacementInstance
    options: SolveOptions
    option_values: dict[str, Any]
    headline: str
    topology_record: InputFile
    model_record: InputFile
    trace_record: TraceInput
    workload_name: str
    phase: str | None
    homes: str
    home_ratio: float
    routing: str
    holdout_reason: str | None
    bill: MemoryBill
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What was asked for, before anything is loaded."""

    topology: Source
    model: Source | None = None
    trace: str | Path | Mapping[str, Any] | None = None
    base: Path


def build_problem(
    sources: Sources, options: SolveOptions, *, slots: int | None = None
) -> Problem:
    """Load the inputs, resolve every default and check what can be checked.

    Parameters
    ----------
    slots
        Slots per GPU of a given plan; None lets the options decide.

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
    instance, bill, split = _instance(loaded, options, slots, notes)
    check_caps(instance)
    topology, trace = loaded.topology, loaded.trace
    notes.extend(f"assumed: {assumption}" for assumption in topology.assumptions)
    notes.extend(f"warning: {warning}" for warning in topology.warnings)
    recorded = trace_record(loaded.place, sources.base)
    return Problem(
        instance=instance,
        options=options,
        option_values=_values_in_force(options, instance, split.policy, bill),
        headline=_headline(instance, loaded.place, given=sources.trace is not None),
        topology_record=topology_record(sources.topology, sources.base),
        model_record=model_record(loaded.wanted, loaded.model, sources.base),
        trace_record=TraceInput(
            **recorded.model_dump(),
            workload=trace.workload if isinstance(trace, CountsTable) else None,
            weight=exact_text(1),
            traffic=instance.traffic,
            phase=split.phase,
        ),
        workload_name=loaded.place.workload or loaded.place.name,
        phase=split.phase,
        homes=split.policy,
        home_ratio=split.ratio,
        routing=_routing(options, topology),
        holdout_reason=split.holdout_reason,
        bill=bill,
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Loaded:
    """Inputs, read and found to fit each other."""

    topology: ClusterTopology
    place: TraceSource
    trace: Trace
    wanted: Source
    model: MoEModelSpec


def _load(sources: Sources, options: SolveOptions) -> _Loaded:
    topology = load_topology(sources.topology)
    carried = workload_of(sources.topology)
    place, trace = _load_trace(sources.trace or carried.get("trace"))
    wanted = sources.model or carried.get("model") or fitting_preset(trace)
    model = load_model(wanted)
    if options.precision is not None:
        model = replace(model, precision=options.precision)  # type: ignore[arg-type]
    require_fit(trace, model)
    return _Loaded(
        topology=topology, place=place, trace=trace, wanted=wanted, model=model
    )


def _routing(options: SolveOptions, topology: ClusterTopology) -> str:
    return options.routing or topology.routing or "ecmp_fractional"


def _instance(
    loaded: _Loaded, options: SolveOptions, slots: int | None, notes: list[str]
) -> tuple[PlacementInstance, MemoryBill, HomesReport]:
    """Resolve modes, groups, slots, memory and parts, in this order."""
    topology, model = loaded.topology, loaded.model
    counts_only = isinstance(loaded.trace, CountsTable)
    traffic = resolve_traffic(options, counts_only=counts_only)
    endpoint = resolve_endpoint(options, topology, traffic, notes)
    layout = choose_layout(topology, model.experts, options)
    per_gpu = slots or slots_per_gpu(model.experts, layout.ep, options)
    messages = message_bytes(model, traffic, options.message_bytes)
    bill = memory_bill(
        model,
        topology,
        layout,
        slots_per_gpu=per_gpu,
        traffic=traffic,
        messages=messages,
        kv_tokens=options.kv_tokens,
        mem_fraction=options.mem_fraction,
        batch_tokens=options.batch_tokens,
    )
    check_memory(bill)
    if layout.tp > 1:
        moved = all_reduce_bytes(model, layout.tp, options.batch_tokens)
        notes.append(
            f"attention groups of {layout.tp} GPUs: each moves {moved / 1e9:.3f} GB of "
            f"all-reduce over NVLink per {options.batch_tokens} tokens"
        )
    planning, holdout, split = split_parts(
        loaded.trace, layout, options.homes, options.holdout, options.phase
    )
    objective = Objective(
        name=options.objective,
        layers=options.layers,
        link_classes=options.link_classes,
    )
    instance = PlacementInstance(
        topology=topology,
        routes=build_routes(topology, _routing(options, topology)),
        model=model,
        layout=layout,
        traffic=traffic,
        selection=options.selection,
        endpoint=endpoint,
        objective=objective,
        caps=resolve_caps(options),
        slots_per_gpu=per_gpu,
        message_bytes=messages,
        planning=planning,
        holdout=holdout,
        memory_bytes_G=bill.total_G,
        memory_limit_G=bill.limit_G,
    )
    return instance, bill, split


def _load_trace(
    given: str | Path | Mapping[str, Any] | None,
) -> tuple[TraceSource, Trace]:
    if isinstance(given, Mapping):
        return TraceSource(name="inline", inline=given), inline_counts(given)
    place = find_trace(given or DEFAULT_TRACE)
    if place.path is None:
        raise TraceError("names no file", where=place.name)
    return place, load_trace(place.path, workload=place.workload)


def _values_in_force(
    options: SolveOptions,
    instance: PlacementInstance,
    homes: str,
    bill: MemoryBill,
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
        "kv_tokens": bill.kv_tokens,
        "threads": options.threads or os.cpu_count() or 1,
    }
    for name in ("link_classes", "message_bytes"):
        given = getattr(options, name)
        values[name] = None if given is None else list(given)
    return values


def _headline(instance: PlacementInstance, trace: TraceSource, *, given: bool) -> str:
    layout, model = instance.layout, instance.model
    sets = f", {layout.sets} sets of it" if layout.sets > 1 else ""
    default = "" if given else " (bundled; name another with --trace)"
    return (
        f"{model.name} on {instance.topology.name}: {instance.layer_count} MoE layers "
        f"of {model.experts} experts, EP group of {layout.ep} GPUs{sets}, "
        f"{instance.slots_per_gpu} slots per GPU and layer, {instance.traffic} / "
        f"{instance.selection} / {instance.endpoint}; trace {trace.name}{default}"
    )
