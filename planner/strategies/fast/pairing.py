"""Two slots per GPU: for given copies, the greatest goes with the smallest."""

from typing import Any

from planner.strategies.search.compiling import inner


@inner  # type: ignore[untyped-decorator]
def sort_experts(size_E: Any, order_E: Any) -> None:
    """Bring ``order_E`` to descending size, quickly if it nearly is; ties by id."""
    for at in range(1, order_E.size):
        expert, to = order_E[at], at
        while to > 0:
            before = order_E[to - 1]
            if size_E[before] > size_E[expert] or (
                size_E[before] == size_E[expert] and before < expert
            ):
                break
            order_E[to] = before
            to -= 1
        order_E[to] = expert


@inner  # type: ignore[untyped-decorator]
def pair_up(copies_E: Any, size_E: Any, order_E: Any, pairs_G2: Any) -> float:
    """Write the pairs, greatest with smallest; return the greatest sum.

    No placement of these copies has a lower maximum, but for two copies of one
    expert that meet in the middle: they change places with the nearest pairs.
    """
    gpus, slot = pairs_G2.shape[0], 0
    sort_experts(size_E, order_E)
    for expert in order_E:
        for _ in range(copies_E[expert]):
            if slot < gpus:
                pairs_G2[slot, 0] = expert
            else:
                pairs_G2[2 * gpus - 1 - slot, 1] = expert
            slot += 1
    separate(pairs_G2)
    greatest = 0.0
    for gpu in range(gpus):
        total = size_E[pairs_G2[gpu, 0]] + size_E[pairs_G2[gpu, 1]]
        greatest = max(greatest, total)
    return greatest


@inner  # type: ignore[untyped-decorator]
def separate(pairs_G2: Any) -> None:
    """Part two copies of one expert on a GPU.

    They are of middle size, so only the innermost pairs can be such, and of all
    pairs without the expert the innermost has the least greater half: swapping with
    it costs least.
    """
    outer = pairs_G2.shape[0] - 1
    for gpu in range(pairs_G2.shape[0] - 1, -1, -1):
        expert = pairs_G2[gpu, 0]
        if pairs_G2[gpu, 1] != expert:
            break
        outer = min(outer, gpu)
        while outer >= 0 and (
            pairs_G2[outer, 0] == expert or pairs_G2[outer, 1] == expert
        ):
            outer -= 1
        pairs_G2[gpu, 1] = pairs_G2[outer, 1]
        pairs_G2[outer, 1] = expert
