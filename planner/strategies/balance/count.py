"""The bound by counting copies, exact where every GPU has one slot.

Whoever wants no copy above t needs at least min{r : size[e, r] ≤ t} copies of e; the
least t at which these fit in P slots is a bound for any number of slots per GPU, and
with one slot per GPU the copies can be laid out as they are.
"""

import heapq
from fractions import Fraction

import numpy as np

from planner.arrays import IntArray
from planner.strategies.balance.bound import LayerBound, ratio_text
from planner.strategies.balance.problem import BalanceLayer


def fewest_copies(layer: BalanceLayer) -> tuple[IntArray, Fraction]:
    """Return P copies whose largest size is least, and that size.

    A copy goes to the expert of greatest size again and again. Sizes that are not
    monotone in r (rule 18's hash) are read as the least of any number up to r: then
    the level is a bound, and the copies need not attain it.
    """
    copies_E = np.ones(layer.experts, dtype=np.int64)
    queue = [(-layer.size(expert, 1), expert) for expert in range(layer.experts)]
    heapq.heapify(queue)
    stuck = None
    for _ in range(layer.slots - layer.experts):
        while queue and copies_E[queue[0][1]] >= layer.most_copies:
            # This expert is on every GPU: the level cannot fall below it.
            size, _ = heapq.heappop(queue)
            stuck = size if stuck is None else min(stuck, size)
        size, expert = queue[0]
        copies_E[expert] += 1
        reached = max(size, -layer.size(expert, int(copies_E[expert])))
        heapq.heapreplace(queue, (reached, expert))
    levels = [size for size, _ in queue[:1]] + ([] if stuck is None else [stuck])
    return copies_E, -min(levels)


def count_bound(layer: BalanceLayer) -> LayerBound:
    """Return the least level at which the copies needed fit in P slots."""
    _, level = fewest_copies(layer)
    return LayerBound(
        value=level,
        method="count",
        certificate={"kind": "count", "level": ratio_text(level)},
    )
