"""Generators of regular clusters: one file per kind, found by its name."""

from planner.registry import discover
from planner.topology.generators.base import GENERATORS, expand

discover(__name__, __path__)

__all__ = ["GENERATORS", "expand"]
