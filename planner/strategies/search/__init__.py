"""``search``: annealing on the true objective with incremental evaluation."""

from planner.strategies.search.strategy import solve_search

__all__ = ["solve_search"]
