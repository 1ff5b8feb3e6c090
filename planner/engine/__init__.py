"""Engines: where independent pieces of a plan, such as layers, are worked on."""

from planner.engine.base import ENGINES, Engine
from planner.registry import discover

discover(__name__, __path__)

__all__ = ["ENGINES", "Engine"]
