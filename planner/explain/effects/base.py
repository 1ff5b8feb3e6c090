"""What an effect is: a reason why placement can lighten links; the registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from planner.arrays import FloatArray
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.registry import Registry
from planner.workload.parts import TokenPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One reason why placement can lighten links, and whether it applies here."""

    name: str
    applies: bool
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What an effect could give, counted without solving.

    ``by_chance`` and ``at_most`` are shares or factors of what ``says`` names.
    """

    by_chance: float
    at_most: float
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Options under which an effect that is there is not, or the other way round."""

    what: str
    options: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRule:
    """One effect of design §4.

    Attributes
    ----------
    letter
        Its place in the list of five.
    seen
        Whether it applies to an instance, and why.
    room
        A cheap count of what it could give; None where nothing can be counted.
    blind
        The instance as a planner sees it that does not know the effect.
    switched
        How to run without the effect where it is there, or with it where it is not;
        None where no option decides.
    """

    letter: str
    seen: Callable[[PlacementInstance], Effect]
    room: Callable[[PlacementInstance], Room | None]
    blind: Callable[[PlacementInstance], PlacementInstance]
    switched: Callable[[PlacementInstance, SolveOptions], Switch | None]


EFFECTS: Registry[EffectRule] = Registry("effect")


def demand_SE(part: TokenPart, layer: int, instance: PlacementInstance) -> FloatArray:
    """Return (token, expert) pairs of a layer by source GPU and expert."""
    ids_TK = part.experts_LTK[layer].astype(np.int64)
    key_TK = part.source_T[:, None] * instance.model.experts + ids_TK
    shape = (instance.layout.gpu_count, instance.model.experts)
    counts = np.bincount(key_TK[ids_TK >= 0], minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.float64)


def demand_NE(part: TokenPart, layer: int, instance: PlacementInstance) -> FloatArray:
    """Return the pairs of a layer by home domain and expert."""
    by_gpu = demand_SE(part, layer, instance)
    domains = instance.topology.domains
    return np.stack([by_gpu[list(members)].sum(axis=0) for members in domains])
