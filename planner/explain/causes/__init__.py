"""Causes of infeasibility: one file per cause, found by its name."""

from planner.explain.causes.base import CAUSES, Change, Finding, Setup
from planner.registry import discover

__all__ = ["CAUSES", "Change", "Finding", "Setup"]

discover(__name__, __path__)
