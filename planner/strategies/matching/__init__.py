"""One expert per GPU and every expert in every domain: matched exactly."""

from planner.strategies.matching.strategy import solve_matching

__all__ = ["solve_matching"]
