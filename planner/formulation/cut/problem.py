"""One layer as the cut formulation sees it: demand, ports, slots, caps."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.arrays import ExactArray, FloatArray, IntArray
from planner.formulation.cut.hierarchy import Hierarchy
from planner.formulation.cut.ports import LegRows, Ports
from planner.instance import PlacementInstance
from planner.workload.parts import CountsPart, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCap:
    """At most ``limit`` pairs on these GPUs together (rule 26)."""

    gpus: tuple[int, ...]
    limit: float


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerProblem:
    """Sets, parameters and options of one layer's model (docs/formulation.md).

    Attributes
    ----------
    demand_EG
        Exact (token, expert) pairs that leave GPU g for expert e, times
        ``denominator``.
    denominator
        1 for traces, G for counts tables.
    slots_per_gpu
        Distinct experts on every GPU.
    size_G
        GPUs that a column stands for: 1, or more in a folded problem, where x says
        that some of them hold the expert.
    rank_G
        EP rank of each GPU: GPUs of one rank in different EP sets hold the same.
    caps
        Caps on pairs, in pairs.
    nearest
        Add the rows that only selection ``nearest`` obeys.
    cell_level
        Level whose blocks are the scale-up domains, if there is one.
    """

    ports: Ports
    demand_EG: ExactArray
    denominator: int
    slots_per_gpu: int
    size_G: IntArray
    rank_G: IntArray
    caps: tuple[LoadCap, ...] = ()
    nearest: bool = False
    cell_level: int | None = None

    @property
    def experts(self) -> int:
        """E."""
        return int(self.demand_EG.shape[0])

    @property
    def gpu_count(self) -> int:
        """G."""
        return int(self.demand_EG.shape[1])

    @property
    def ranks(self) -> int:
        """GPUs of one EP set."""
        return 1 + int(self.rank_G.max())

    @property
    def hierarchy(self) -> Hierarchy:
        """The nested blocks of GPUs."""
        return self.ports.hierarchy

    @property
    def legs(self) -> tuple[LegRows, ...]:
        """The rows of links; empty where pairs per GPU are minimized."""
        return self.ports.legs

    @property
    def pairs(self) -> Fraction:
        """All (token, expert) pairs of the layer."""
        return Fraction(int(self.demand_EG.sum()), self.denominator)

    @property
    def amount_EG(self) -> FloatArray:
        """Demand in pairs."""
        exact = self.demand_EG.astype(np.float64)
        amount: FloatArray = exact / float(self.denominator)
        return amount


def layer_demand(
    part: Part, layer: int, *, experts: int, gpus: int
) -> tuple[ExactArray, int]:
    """Return the pairs of every expert and source GPU [E, G] and a denominator.

    Counts tables: every DP rank holds tokens/S of each expert and its GPUs equal
    parts of that, tokens/G each (rule 11).
    """
    if isinstance(part, CountsPart):
        held = np.asarray(part.tokens_LE[layer], dtype=np.int64)
        return np.repeat(held[:, None], gpus, axis=1), gpus
    ids_TK = part.experts_LTK[layer].astype(np.int64)
    key = ids_TK * gpus + part.source_T[:, None]
    counted = np.bincount(key[ids_TK >= 0], minlength=experts * gpus)
    return counted.astype(np.int64).reshape(experts, gpus), 1


def layer_problem(
    instance: PlacementInstance, ports: Ports, layer: int
) -> LayerProblem:
    """Return the model's view of layer index ``layer`` on the planning part."""
    layout = instance.layout
    demand_EG, denominator = layer_demand(
        instance.planning,
        layer,
        experts=instance.model.experts,
        gpus=layout.gpu_count,
    )
    pairs = float(Fraction(int(demand_EG.sum()), denominator))
    return LayerProblem(
        ports=ports,
        demand_EG=demand_EG,
        denominator=denominator,
        slots_per_gpu=instance.slots_per_gpu,
        size_G=np.ones(layout.gpu_count, dtype=np.int64),
        rank_G=np.arange(layout.gpu_count) % layout.ep,
        caps=_caps(instance, layer, pairs),
        # Without copies there is nothing to select: the rows would say nothing new.
        nearest=instance.selection == "nearest"
        and instance.slot_count > instance.model.experts,
        cell_level=ports.hierarchy.level_of(layout.domain_G),
    )


def _caps(instance: PlacementInstance, layer: int, pairs: float) -> tuple[LoadCap, ...]:
    mean = pairs / instance.layout.gpu_count
    of_gpu, of_domain = instance.caps.gpu_at(layer), instance.caps.domain_at(layer)
    caps: list[LoadCap] = []
    if of_gpu is not None:
        limit = float(of_gpu) * mean
        caps += [
            LoadCap(gpus=(g,), limit=limit) for g in range(instance.layout.gpu_count)
        ]
    if of_domain is not None:
        limit = float(of_domain) * mean
        caps += [
            LoadCap(gpus=members, limit=limit * len(members))
            for members in instance.topology.domains
        ]
    return tuple(caps)
