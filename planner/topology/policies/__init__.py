"""Routing policies that send a flow along one path: one file per policy.

``ecmp_fractional``, the default, divides instead of choosing and is part of the
routes themselves (``planes``).
"""

from planner.registry import discover

discover(__name__, __path__)
