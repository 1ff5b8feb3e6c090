"""``balance``: closed forms and special models for the load of experts alone."""

from planner.strategies.balance.strategy import solve_balance

__all__ = ["solve_balance"]
