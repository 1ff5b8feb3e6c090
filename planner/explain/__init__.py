"""Why a plan is as good as it is: what binds, what would relax it, what is missing."""

from planner.explain.binding import (
    LayerBinding,
    MemoryRow,
    layer_bindings,
    memory_row,
    what_binds,
)
from planner.explain.effects import Effect, link_effects, why_links_cannot_gain

__all__ = [
    "Effect",
    "LayerBinding",
    "MemoryRow",
    "layer_bindings",
    "link_effects",
    "memory_row",
    "what_binds",
    "why_links_cannot_gain",
]
