"""One layer under a free split (``weighted``): placement, weights, bound.

Which way it goes is decided by the numbers of experts, GPUs and slots alone:

- one slot per GPU: copies one after the other to the greatest load per copy;
- E ≤ (J-1)·G + 1: the mean, exactly (:mod:`~planner.strategies.balance.weighted_fill`);
- up to 16 experts: the best partition into blocks, by dynamic programming;
- else a search over partitions, and the bound by covering multipliers.

Axes: E experts, G GPUs, J slots of a GPU.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from planner.arrays import IdArray
from planner.strategies.balance.weighted_bound import (
    LayerBound,
    copies_by_count,
    count_bound,
    mean_bound,
)
from planner.strategies.balance.weighted_covering import covering_bound
from planner.strategies.balance.weighted_exact import MOST_EXPERTS, best_blocks
from planner.strategies.balance.weighted_fill import (
    Block,
    Weights,
    filled,
    mean_is_reached,
)
from planner.strategies.balance.weighted_search import (
    block_value,
    packed_blocks,
    searched_blocks,
)
from planner.strategies.balance.weighted_split import induced_load, least_split

PROPOSALS = 500_000
"""Moves at each level of a search: about 0.1 s."""
ROUNDS = 12
CLOSE = Fraction(1, 1000)
"""A relative gap at which the search stops, unless asked for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedLayer:
    """A layer's placement with its evidence.

    Attributes
    ----------
    slots_GJ
        No GPU holds an expert twice; all slots are used.
    weights
        Integer weights of experts with several copies, in copy order (rule 19);
        copies of the others share evenly.
    value
        The busiest GPU's load with these weights, exactly.
    level
        The same before shares were rounded to weights.
    """

    slots_GJ: IdArray
    weights: Weights
    value: Fraction
    level: Fraction
    bound: LayerBound

    @property
    def gap(self) -> Fraction:
        """(value - bound)/value, 0 for a layer without load."""
        return (self.value - self.bound.value) / self.value if self.value else self.value


def weighted_layer(
    load_E: Sequence[int],
    gpus: int,
    slots_per_gpu: int,
    *,
    seconds: float = 10.0,
    gap: Fraction = CLOSE,
    seed: int = 0,
    start: IdArray | None = None,
) -> BalancedLayer:
    """Return a placement of E experts and the split of their loads.

    Parameters
    ----------
    load_E
        (token, expert) pairs of each expert.
    seconds, gap
        When a search stops; closed forms need neither.
    start
        Slots of a known placement: the result is never worse than its best split.

    Raises
    ------
    ValueError
        If P < E, or J > E (two copies of an expert would share a GPU).
    """
    loads = tuple(int(load) for load in load_E)
    if not slots_per_gpu <= len(loads) <= gpus * slots_per_gpu:
        raise ValueError("needs J ≤ E ≤ G·J")
    blocks, bound = _solved(loads, gpus, slots_per_gpu, (seconds, gap, seed))
    level = block_value(blocks, loads)
    if start is not None:
        known, weights = least_split(start, loads)
        if known < level:
            return BalancedLayer(
                slots_GJ=start,
                weights=weights,
                value=induced_load(start, loads, weights),
                level=known,
                bound=bound,
            )
    slots_GJ, weights = filled(blocks, loads, slots_per_gpu)
    return BalancedLayer(
        slots_GJ=slots_GJ,
        weights=weights,
        value=induced_load(slots_GJ, loads, weights),
        level=level,
        bound=bound,
    )


def _solved(
    load_E: tuple[int, ...],
    gpus: int,
    slots_per_gpu: int,
    limits: tuple[float, Fraction, int],
) -> tuple[list[Block], LayerBound]:
    """Return blocks and the best bound known for them."""
    mean = mean_bound(load_E, gpus)
    if slots_per_gpu == 1:
        copies_E = copies_by_count(load_E, gpus)
        blocks = [
            Block(experts=(expert,), gpus=copies)
            for expert, copies in enumerate(copies_E)
        ]
        return blocks, count_bound(load_E, gpus)
    if mean_is_reached(len(load_E), gpus, slots_per_gpu):
        return [Block(experts=tuple(range(len(load_E))), gpus=gpus)], mean
    count = count_bound(load_E, gpus * slots_per_gpu)
    floor = max(mean, count, key=lambda bound: bound.value)
    if len(load_E) <= MOST_EXPERTS:
        blocks = best_blocks(load_E, gpus, slots_per_gpu)
        return blocks, _exact_bound(blocks, load_E, floor)
    return _searched(load_E, gpus, slots_per_gpu, floor, limits)


def _exact_bound(
    blocks: Sequence[Block], load_E: tuple[int, ...], floor: LayerBound
) -> LayerBound:
    """Return the blocks' value as a bound, by what can be checked if that is enough."""
    value = block_value(blocks, load_E)
    if floor.value == value:
        return floor
    slots = (sum(len(b.experts) + b.gpus - 1 for b in blocks), sum(b.gpus for b in blocks))
    proven = covering_bound(
        load_E,
        slots[1],
        slots[0] // slots[1],
        value=value,
        floor=value * (1 - Fraction(1, 10**9)),
        seconds=2.0,
    )
    if proven is not None:
        return proven
    return LayerBound(value=value, method="exact", certificate=None, branching=True)


def _searched(
    load_E: tuple[int, ...],
    gpus: int,
    slots_per_gpu: int,
    floor: LayerBound,
    limits: tuple[float, Fraction, int],
) -> tuple[list[Block], LayerBound]:
    """Search and bound in turn until they are close, or time is up.

    The bound is looked for again only where a better plan makes that worth while.
    """
    seconds, gap, seed = limits
    deadline = time.monotonic() + seconds
    start = packed_blocks(load_E, gpus, slots_per_gpu)
    best, bound = start, floor
    value = bounded_at = block_value(start, load_E)
    for turn in range(ROUNDS):
        found = searched_blocks(
            start,
            load_E,
            floor=bound.value,
            ceiling=value,
            proposals=PROPOSALS,
            seed=seed + turn,
        )
        reached = block_value(found, load_E)
        if reached < value:
            best, value = found, reached
        left = deadline - time.monotonic()
        if (turn == 0 or value < bounded_at) and value - bound.value > gap * value:
            bounded_at = value
            proven = covering_bound(
                load_E,
                gpus,
                slots_per_gpu,
                value=value,
                floor=bound.value,
                seconds=left,
            )
            bound = proven or bound
        if value - bound.value <= gap * value or left <= 0:
            break
    return best, bound
