"""The five effects through which placement lightens links: one file each."""

from planner.explain.effects.base import EFFECTS, Effect, EffectRule, Room, Switch
from planner.instance import PlacementInstance
from planner.registry import discover

__all__ = [
    "EFFECTS",
    "Effect",
    "EffectRule",
    "Room",
    "Switch",
    "link_effects",
    "rules",
    "why_links_cannot_gain",
]

discover(__name__, __path__)


def rules() -> list[EffectRule]:
    """Return the effects in the order of design §4."""
    found = [EFFECTS.get(name) for name in EFFECTS.names()]
    return sorted(found, key=lambda rule: rule.letter)


def link_effects(instance: PlacementInstance) -> tuple[Effect, ...]:
    """Return the effects of design §4 through which placement lightens links.

    If none applies, a GPU's ports carry a fixed share of the load of its experts
    wherever they sit, so that only balance matters.
    """
    return tuple(rule.seen(instance) for rule in rules())


def why_links_cannot_gain(instance: PlacementInstance) -> str | None:
    """Return the reason in one sentence, or None if links can gain."""
    effects = link_effects(instance)
    if any(effect.applies for effect in effects):
        return None
    reasons = "; ".join(effect.because for effect in effects)
    return (
        "links cannot gain here, only balance can: every GPU's ports carry a fixed "
        f"share of its experts' load wherever they sit ({reasons})"
    )
