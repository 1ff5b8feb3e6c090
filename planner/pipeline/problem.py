"""From names and options to one placement problem with every default resolved."""

from dataclasses import dataclass
from typing import Any

from planner.workload.memory import MemoryBill

from planner.instance import (
    PlacementInstance,
)
from planner.manifest.schema import InputFile, TraceInput
from planner.options import SolveOptions

PHASE_TRAFFIC = {"prefill": "dedup_domain", "decode": "copies"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """An instance together with where it comes from.

    Attributes
    ----------
    option_values
        Every option in force, defaults resolved; recorded in the manifest.
    notes
        Sentences for the reader: what was assumed, taken or ignored.
    home_ratio
        Max/mean tokens per home over the whole trace.
    """

    instance: PlacementInstance
    options: SolveOptions
    option_values: dict[str, Any]
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


def build_problem(
    topology: Source,
    *,
    model: Source | None = None,
    trace: str | Path | Mapping[str, Any] | None = None,
    options: SolveOptions,
    base: Path,
    slots: int | None = None,
) -> Problem:
    """Load the inputs, resolve every default and check what can be checked.

    Parameters
    ----------
    trace
        ``FILE[#WORKLOAD]``, a bundled name, or inline counts
        ``{"counts": {"workload", "phase", "layers", "tokens", "top_k"}}``.
    base
        Folder that recorded paths are relative to.
    slots
        Slots per GPU of a given plan; None lets the options decide.

    Raises
    ------
    InputError
        For a bad file or value.
    InfeasibleError
        If no plan fits: memory, slots, or a cap below its floor.
    """
    _check_names(options)
    notes: list[str] = []
    cluster = load_topology(topology)
    notes.extend(cluster.assumptions)
    notes.extend(f"warning: {warning}" for warning in cluster.warnings)
    carried = workload_of(topology)
    source, loaded = _load_trace(trace or carried.get("trace"), notes)
    spec, model_source = _load_model(model or carried.get("model"), loaded, options)
    require_fit(loaded, spec)
    traffic = _traffic(options, loaded)
    endpoint = _endpoint(options, cluster, traffic, notes)
    routing = options.routing or cluster.routing or "ecmp_fractional"
    routes = build_routes(cluster, routing)
    layout = choose_layout(cluster, spec.experts, options)
    per_gpu = slots or slots_per_gpu(spec.experts, layout.ep, options)
    notes.append(
        f"EP group: {layout.ep} of {layout.gpu_count} GPUs hold one set of "
        f"{spec.experts} experts in {per_gpu} slots per GPU and layer"
        + (f", {layout.sets} sets" if layout.sets > 1 else "")
    )
    parts = split_parts(
        loaded, layout, options.homes, options.holdout, _phase(options, loaded)
    )
    messages = message_bytes(spec, traffic, options.message_bytes)
    bill = memory_bill(
        spec,
        cluster,
        layout,
        slots_per_gpu=per_gpu,
        traffic=traffic,
        message_bytes=messages,
        kv_tokens=options.kv_tokens,
        mem_fraction=options.mem_fraction,
        batch_tokens=options.batch_tokens,
    )
    check_memory(bill)
    instance = PlacementInstance(
        topology=cluster,
        routes=routes,
        model=spec,
        layout=layout,
        traffic=traffic,
        selection=options.selection,
        endpoint=endpoint,
        objective=Objective(
            name=options.objective,
            layers=options.layers,
            link_classes=options.link_classes,
        ),
        caps=Caps(gpu=options.imbalance_cap, domain=options.domain_imbalance_cap),
        slots_per_gpu=per_gpu,
        message_bytes=messages,
        planning=parts.planning,
        holdout=parts.holdout,
        memory_bytes_G=bill.total_G,
        memory_limit_G=bill.limit_G,
    )
    check_caps(instance)
    return Problem()
