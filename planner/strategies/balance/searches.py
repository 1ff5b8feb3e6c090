"""A layer's search, by the number of slots of a GPU."""

import numpy as np

from planner.strategies.balance.layer import Effort, LayerSearch, LayerSolution
from planner.strategies.balance.pairs import Pairs
from planner.strategies.balance.problem import BalanceLayer, counted_layer
from planner.strategies.balance.several import Several


def solve_layer(
    layer: BalanceLayer, seconds: float, effort: Effort | None = None
) -> LayerSolution:
    """Place one layer and bound it, with all the effort that the time allows."""
    return search_of(layer, effort or Effort()).work(seconds, thorough=True)


def search_of(layer: BalanceLayer, effort: Effort) -> LayerSearch:
    """Return the search for one slot, two slots, or more."""
    if layer.total == 0 or layer.slots_per_gpu == 1:
        return LayerSearch(layer, effort)
    if layer.slots_per_gpu == 2:
        return Pairs(layer, effort)
    return Several(layer, effort)


def compile_searches() -> None:
    """Solve two toys, which compiles what is not cached yet."""
    for slots in (2, 3):
        toy = counted_layer(np.arange(1, 5, dtype=np.int64), 2, slots)
        solve_layer(toy, 60.0, Effort(rounds=1))
