"""``fast``: every layer's GPUs evened out within milliseconds (``docs/fast.md``)."""

from planner.strategies.fast.strategy import solve_fast

__all__ = ["solve_fast"]
