"""Sizes that follow from the options: EP group, slots, attention groups."""

import re
from math import ceil

from planner.arrays import IntArray
from planner.errors import UsageError
from planner.layout import ParallelLayout
from planner.options import AUTO, SolveOptions
from planner.pipeline.resolve import SINGLE
from planner.topology.graph import ClusterTopology


def parse_layout(text: str) -> dict[str, int]:
    """Return the degrees named in ``tp=T[,dp=D][,ep=N]``; empty for ``auto``."""
    if text == "auto":
        return {}
    degrees: dict[str, int] = {}
    for item in text.split(","):
        match = re.fullmatch(r"(tp|dp|ep|pp|etp)=([1-9][0-9]*)", item.strip())
        if match is None:
            raise UsageError(
                f"--layout {text!r}: {item!r} is not one of tp=, dp=, ep=, pp=, etp= "
                "with a whole number > 0"
            )
        degrees[match[1]] = int(match[2])
    for name in ("pp", "etp"):
        if degrees.get(name, 1) != 1:
            raise UsageError(
                f"--layout {name}={degrees[name]}: only {name}=1 is supported yet"
            )
    return degrees


def choose_layout(
    topology: ClusterTopology, experts: int, options: SolveOptions
) -> ParallelLayout:
    """Return the EP and attention groups (design §5, rule 16).

    By default one EP set over all GPUs if G ≤ E + R, else sets of the largest
    domain-aligned divisor of G that is ≤ E; attention groups are consecutive GPUs
    of a domain, all of them or, with a smaller ``dp``, the first.
    """
    degrees = parse_layout(options.layout)
    gpus = topology.gpu_count
    single = options.policy == SINGLE
    ep = degrees.get("ep") or (
        gpus if single else _default_ep(topology, experts, options)
    )
    if single and ep != gpus:
        raise UsageError(
            f"--layout ep={ep}: under --policy {SINGLE} all {gpus} GPUs are one EP set"
        )
    if gpus % ep:
        raise UsageError(f"--layout ep={ep} does not divide the {gpus} GPUs")
    tp = degrees.get("tp", 1)
    groups = _attention_groups(topology, tp, degrees.get("dp"))
    return ParallelLayout(
        domain_G=topology.domain_G, ep=ep, attention_groups=tuple(groups)
    )


def slots_per_gpu(experts: int, ep: int, options: SolveOptions) -> int:
    """Return the slots of every GPU in every layer (policies of design §5).

    ``auto`` begins with the smallest number of slots that holds every expert. Under
    ``one_expert_per_gpu_total`` the one slot is that of all layers together. Whether
    they hold every expert, and none twice, is for the causes of infeasibility to say.
    """
    if options.policy == SINGLE:
        if redundant(options):
            raise UsageError(
                f"--redundant {options.redundant}: --policy {SINGLE} gives every "
                "expert one GPU; use --redundant 0"
            )
        return 1
    if options.policy == "one_expert_per_gpu":
        return 1
    if options.redundant == AUTO:
        return ceil(experts / ep)
    slots = experts + redundant(options)
    if slots % ep:
        low, high = slots // ep * ep - experts, ceil(slots / ep) * ep - experts
        near = f"{low} or {high}" if low >= 0 else f"{high}"
        raise UsageError(
            f"--redundant {options.redundant}: {experts} experts + "
            f"{options.redundant} slots do not divide over {ep} GPUs; use {near}"
        )
    return slots // ep


def redundant(options: SolveOptions) -> int:
    """Return R, the redundant experts asked for; 0 where slots are not given."""
    if options.redundant == AUTO:
        return 0
    if not options.redundant.isdecimal():
        raise UsageError(
            f"--redundant {options.redundant!r} is neither {AUTO} nor a whole number "
            ">= 0"
        )
    return int(options.redundant)


def _default_ep(topology: ClusterTopology, experts: int, options: SolveOptions) -> int:
    gpus = topology.gpu_count
    if gpus <= experts + redundant(options):
        return gpus
    divisors = [n for n in range(1, experts + 1) if gpus % n == 0]
    aligned = [n for n in divisors if _is_aligned(topology.domain_G, n)]
    return max(aligned or divisors)


def _is_aligned(domain_G: IntArray, ep: int) -> bool:
    """Whether no block of ``ep`` GPUs holds parts of two unfinished domains."""
    sizes = {int((domain_G == domain).sum()) for domain in set(domain_G.tolist())}
    return all(ep % size == 0 or size % ep == 0 for size in sizes)


def _attention_groups(
    topology: ClusterTopology, tp: int, dp: int | None
) -> list[tuple[int, ...]]:
    """Return runs of ``tp`` GPUs: ``dp`` of them, or as many as take all GPUs."""
    groups: list[tuple[int, ...]] = []
    for members in topology.domains:
        if len(members) % tp and dp is None:
            raise UsageError(
                f"--layout tp={tp} does not divide the scale-up domain of "
                f"{topology.gpus[members[0]].id}, which has {len(members)} GPUs; add "
                "dp=D for attention on some GPUs only"
            )
        whole = len(members) // tp * tp
        groups.extend(members[start : start + tp] for start in range(0, whole, tp))
    if dp is not None and dp > len(groups):
        raise UsageError(
            f"--layout tp={tp},dp={dp}: {topology.gpu_count} GPUs in groups of {tp} "
            f"of one domain make dp={len(groups)} at most"
        )
    return sorted(groups)[:dp]
