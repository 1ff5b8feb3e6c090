"""The strategy ``single``: one expert of one layer on every GPU."""

from planner.strategies.single.strategy import solve_single

__all__ = ["solve_single"]
