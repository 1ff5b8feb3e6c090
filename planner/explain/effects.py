"""Whether links can gain at all: the effects through which placement lightens them."""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from planner.arrays import BoolArray, FloatArray
from planner.instance import PlacementInstance
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart, TokenPart

CORRELATION_SIGMAS = 5.0
"""Excess of χ² over its mean, in standard deviations, that counts as correlated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One reason why placement can lighten links, and whether it applies here."""

    name: str
    applies: bool
    because: str


def link_effects(instance: PlacementInstance) -> tuple[Effect, ...]:
    """Return the effects of design §4 through which placement lightens links.

    If none applies, a GPU's ports carry a fixed share of the load of its experts
    wherever they sit, so that only balance matters.
    """
    return (
        _dedup(instance),
        _direct_flow(instance),
        _correlated_homes(instance),
        _near_copies(instance),
        _unequal_links(instance),
    )


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


def _dedup(instance: PlacementInstance) -> Effect:
    mode = TRAFFIC.get(instance.traffic)
    linear = mode.linear or mode.chained
    because = (
        f"{instance.traffic} sends one transfer per (token, expert)"
        if linear
        else f"{instance.traffic} merges transfers of experts that sit together"
    )
    return Effect(name="dedup", applies=not linear, because=because)


def _direct_flow(instance: PlacementInstance) -> Effect:
    applies = TRAFFIC.get(instance.traffic).chained
    word = "leave from their last best expert" if applies else "leave from home"
    because = f"tokens of {instance.traffic} {word} in every layer"
    return Effect(name="direct flow", applies=applies, because=because)


def _correlated_homes(instance: PlacementInstance) -> Effect:
    part = instance.planning
    name = "homes correlated with experts"
    if isinstance(part, CountsPart):
        because = "a counts table has uniform homes"
        return Effect(name=name, applies=False, because=because)
    sigmas = max(
        _chi_square_sigmas(_demand(part, layer, instance))
        for layer in range(instance.layer_count)
    )
    applies = sigmas > CORRELATION_SIGMAS
    word = "depend" if applies else "do not depend"
    because = f"homes {word} on experts: χ² at most {sigmas:+.1f}σ from chance"
    return Effect(name=name, applies=applies, because=because)


def _demand(part: TokenPart, layer: int, instance: PlacementInstance) -> FloatArray:
    ids_TK = part.experts_LTK[layer].astype(np.int64)
    key_TK = part.source_T[:, None] * instance.model.experts + ids_TK
    shape = (instance.layout.gpu_count, instance.model.experts)
    counts = np.bincount(key_TK[ids_TK >= 0], minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.float64)


def _chi_square_sigmas(demand_SE: FloatArray) -> float:
    """Return how far χ² of independence lies above its mean, in sigmas."""
    rows, columns = demand_SE.sum(axis=1), demand_SE.sum(axis=0)
    demand = demand_SE[rows > 0][:, columns > 0]
    freedom = (demand.shape[0] - 1) * (demand.shape[1] - 1)
    if freedom <= 0:
        return 0.0
    expected = np.outer(demand.sum(axis=1), demand.sum(axis=0)) / demand.sum()
    chi_square = float(((demand - expected) ** 2 / expected).sum())
    return float((chi_square - freedom) / sqrt(2 * freedom))


def _near_copies(instance: PlacementInstance) -> Effect:
    name = "near copies"
    extra = instance.slot_count - instance.model.experts
    if not extra:
        return Effect(name=name, applies=False, because="no redundant copies")
    if instance.selection == "even":
        because = "even selection ignores where copies are"
        return Effect(name=name, applies=False, because=because)
    because = f"{extra} redundant slots can hold copies near their tokens"
    return Effect(name=name, applies=True, because=because)


def _unequal_links(instance: PlacementInstance) -> Effect:
    """Under uniform all-to-all, compare links many GPUs share with ports of one."""
    name = "unequal or shared links"
    seconds_A, is_port_A = _all_to_all_seconds(instance)
    links = instance.topology.links
    busiest_port = float(seconds_A[is_port_A].max(initial=0.0))
    shared = np.where(is_port_A, 0.0, seconds_A)
    worst = int(np.argmax(shared))
    if shared[worst] > busiest_port * (1 + 1e-9):
        because = f"{links[worst].name} is shared and busier than any GPU's own port"
        return Effect(name=name, applies=True, because=because)
    for link_class in {link.link_class for link in links}:
        inside = [link.index for link in links if link.link_class == link_class]
        ports = seconds_A[[index for index in inside if is_port_A[index]]]
        if ports.size and ports.max() > ports.min() * (1 + 1e-9):
            because = f"ports of class {link_class} are unequal"
            return Effect(name=name, applies=True, because=because)
    because = "every GPU has equal ports and no shared link is busier than a port"
    return Effect(name=name, applies=False, because=because)


def _all_to_all_seconds(
    instance: PlacementInstance,
) -> tuple[FloatArray, BoolArray]:
    """Return link seconds of one byte per GPU pair, and which links serve one GPU."""
    gpus, links = instance.layout.gpu_count, instance.topology.links
    uniform_GG = np.ones((gpus, gpus), dtype=np.int64)
    np.fill_diagonal(uniform_GG, 0)
    loads_A = instance.routes.loads(uniform_GG).astype(np.float64)
    seconds_A = loads_A / np.asarray([float(link.bytes_per_s) for link in links])
    indptr, link_X, _ = instance.routes.incidence()
    pair_X = np.repeat(np.arange(gpus * gpus), np.diff(indptr))
    ends = [
        np.bincount(np.unique(link_X * gpus + end_X) // gpus, minlength=len(links))
        for end_X in (pair_X // gpus, pair_X % gpus)
    ]
    return seconds_A, (ends[0] <= 1) | (ends[1] <= 1)
