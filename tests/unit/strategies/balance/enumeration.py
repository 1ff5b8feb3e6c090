"""The least greatest load by trying everything: no code of the planner's."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations


def least_load(loads: list[int], gpus: int, slots: int) -> Fraction:
    """Return the optimum over all placements of ``slots`` per GPU."""
    return min(
        max(
            sum((Fraction(loads[e], placed.count(e)) for e in gpu), Fraction(0))
            for gpu in split(placed, slots)
        )
        for placed in placements(len(loads), gpus, slots)
    )


def placements(experts: int, gpus: int, slots: int) -> Iterator[list[int]]:
    """Yield every placement as the experts of all slots, GPU after GPU.

    Every GPU holds different experts and every expert is somewhere. GPUs are alike,
    so only those in ascending order are listed.
    """
    kinds = list(combinations(range(experts), slots))

    def grow(first: int, placed: list[int], left: int) -> Iterator[list[int]]:
        if left == 0:
            if len(set(placed)) == experts:
                yield placed
            return
        for at in range(first, len(kinds)):
            yield from grow(at, [*placed, *kinds[at]], left - 1)

    return grow(0, [], gpus)


def split(placed: list[int], slots: int) -> list[list[int]]:
    """Return the experts of each GPU."""
    return [placed[at : at + slots] for at in range(0, len(placed), slots)]


def load_of(loads: list[int], rows: list[list[int]]) -> Fraction:
    """Return the greatest load of a placement given by rows, counted naively."""
    flat = [expert for row in rows for expert in row]
    return max(
        sum((Fraction(loads[e], flat.count(e)) for e in row), Fraction(0))
        for row in rows
    )
