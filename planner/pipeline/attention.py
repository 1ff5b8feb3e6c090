"""Which GPUs form the attention groups, where they are not all alike (design §5)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.errors import UsageError
from planner.formulation.attention import Attention, form_groups
from planner.layout import ParallelLayout
from planner.options import SolveOptions
from planner.pipeline.groups import choose_layout, slots_per_gpu
from planner.pipeline.resolve import SINGLE
from planner.topology.graph import ClusterTopology
from planner.topology.ways import fabric_seconds, scale_up_seconds
from planner.workload.memory import MemoryBill, memory_bill
from planner.workload.model_spec import MoEModelSpec

SHOWN_GROUPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """How the tokens of a workload travel: what its buffers depend on."""

    traffic: str
    message_bytes: tuple[int, int]
    counts: bool = False


def attention_layout(
    topology: ClusterTopology,
    model: MoEModelSpec,
    options: SolveOptions,
    modes: Sequence[Mode],
    slots: int | None = None,
) -> ParallelLayout:
    """Return the EP and attention groups.

    Where GPUs of a domain differ, or only some GPUs attend, an integer program decides
    which form a group (docs/formulation.md); elsewhere they are consecutive.

    Raises
    ------
    UsageError
        If the layout asks for what cannot be, or attention on some GPUs only goes
        with another option.
    """
    layout = choose_layout(topology, model.experts, options)
    partial = not layout.attends_G.all()
    if partial:
        _check_partial(layout, options, modes)
    if layout.tp == 1 and not partial:
        return layout
    per_gpu = slots or slots_per_gpu(model.experts, layout.ep, options)
    bill = dearest_bill(model, topology, layout, per_gpu, options, modes)
    wanted = _wanted(topology, layout, bill)
    if not partial and _alike(wanted):
        return layout
    groups = form_groups(wanted)
    return layout if groups is None else replace(layout, attention_groups=groups)


def group_notes(topology: ClusterTopology, layout: ParallelLayout) -> list[str]:
    """Say which GPUs form a group, where they are not simply consecutive."""
    notes = []
    groups = layout.attention_groups
    if any(group[-1] - group[0] >= layout.tp for group in groups):
        shown = [
            f"{rank}: " + " + ".join(topology.gpus[gpu].id for gpu in group)
            for rank, group in enumerate(groups[:SHOWN_GROUPS])
        ]
        more = "" if len(groups) <= SHOWN_GROUPS else ", …"
        notes.append(f"attention groups of unlike GPUs: {', '.join(shown)}{more}")
    idle = int((~layout.attends_G).sum())
    if idle:
        notes.append(
            f"attention on {layout.gpu_count - idle} of {layout.gpu_count} GPUs; "
            "the others hold experts only"
        )
    return notes


def dearest_bill(
    model: MoEModelSpec,
    topology: ClusterTopology,
    layout: ParallelLayout,
    per_gpu: int,
    options: SolveOptions,
    modes: Sequence[Mode],
) -> MemoryBill:
    """Return the memory bill of the workload whose buffers are the largest."""
    bills = [
        memory_bill(
            model,
            topology,
            layout,
            slots_per_gpu=per_gpu,
            traffic=mode.traffic,
            messages=mode.message_bytes,
            kv_tokens=options.kv_tokens,
            mem_fraction=options.mem_fraction,
            batch_tokens=options.batch_tokens,
            single=options.policy == SINGLE,
            attends_G=layout.attends_G,
        )
        for mode in modes
    ]
    return max(bills, key=lambda bill: bill.batch_token_bytes)


def _wanted(
    topology: ClusterTopology, layout: ParallelLayout, bill: MemoryBill
) -> Attention:
    """Return what tells the GPUs apart.

    Memory left is counted without the KV cache where a share of memory is given: the
    cache then takes what is left.
    """
    filled = bill.terms["reserved"]
    if bill.kv_fills:
        filled = filled + bill.terms["kv_cache"]
    attending = int(np.flatnonzero(layout.attends_G)[0])
    served = int((bill.total_G - filled)[attending])
    profiles = sorted({gpu.profile for gpu in topology.gpus})
    return Attention(
        size=layout.tp,
        count=layout.dp,
        domain_G=topology.domain_G,
        free_G=bill.limit_G - bill.terms["reserved"] - served,
        profile_G=np.asarray([profiles.index(gpu.profile) for gpu in topology.gpus]),
        far_G=fabric_seconds(topology),
        near_NMM=scale_up_seconds(topology),
    )


def _alike(wanted: Attention) -> bool:
    """Whether nothing tells the GPUs of a domain apart."""
    for domain, near_MM in enumerate(wanted.near_NMM):
        inside = wanted.domain_G == domain
        traits = (wanted.free_G, wanted.profile_G, wanted.far_G)
        apart = near_MM[~np.eye(len(near_MM), dtype=np.bool_)]
        if any(
            np.unique(each).size > 1 for each in (*(t[inside] for t in traits), apart)
        ):
            return False
    return True


def _check_partial(
    layout: ParallelLayout, options: SolveOptions, modes: Sequence[Mode]
) -> None:
    """Attention on some GPUs only: refuse what needs it, or equal homes, on all."""
    what = (
        f"--layout tp={layout.tp},dp={layout.dp} leaves GPUs without attention, which"
    )
    if layout.sets > 1:
        raise UsageError(
            f"{what} needs one EP set: use ep={layout.gpu_count}, not ep={layout.ep}"
        )
    for mode in modes:
        if mode.counts:
            raise UsageError(
                f"{what} a counts table does not go with: its homes are all GPUs"
            )
        if mode.traffic == "direct":
            raise UsageError(
                f"{what} --traffic direct does not go with: tokens attend where their "
                "experts are"
            )
