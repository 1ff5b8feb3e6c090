"""``priced``: annealing of copies with a free split, led by the prices of an LP."""

from planner.strategies.priced.strategy import solve_priced

__all__ = ["solve_priced"]
