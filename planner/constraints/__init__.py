"""Where experts must, must not and need not stay: pins, anti-affinity, few moves.

The words of a file (``document``), what they mean on a cluster (``resolving``), and
the one check whether the slots of a layer keep them (``rules``).
"""

from planner.constraints.document import (
    KINDS,
    check_document,
    previous_document,
    read_constraints,
)
from planner.constraints.resolving import Ground, resolve
from planner.constraints.rules import LayerRules, PlacementConstraints, Rule

__all__ = [
    "KINDS",
    "Ground",
    "LayerRules",
    "PlacementConstraints",
    "Rule",
    "check_document",
    "previous_document",
    "read_constraints",
    "resolve",
]
