"""Baselines: one file each; every one is also a strategy of its own."""

from planner.registry import discover
from planner.strategies.baselines.base import BASELINES
from planner.strategies.baselines.strategy import register_as_strategies

discover(__name__, __path__)
register_as_strategies(BASELINES.names())
