"""Relaxations: one file per thing that can be eased, found by its name."""

from planner.explain.relax.base import RELAXATIONS, Question, Relaxation
from planner.registry import discover

__all__ = ["RELAXATIONS", "Question", "Relaxation"]

discover(__name__, __path__)
