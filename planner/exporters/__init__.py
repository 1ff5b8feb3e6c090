"""Exporters: one file per engine, found by their registered name."""

from planner.registry import discover

discover(__name__, __path__)
