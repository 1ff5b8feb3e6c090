"""Everything a plan is judged by, on one part of the workload."""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.evaluator.layer import LayerLoads, brought_home, layer_loads
from planner.evaluator.objective import objective_value, values_of
from planner.instance import OBJECTIVES, PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.workload.parts import CountsPart, Part, TokenPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Imbalance:
    """Max/mean of pairs per GPU and per domain (rule 26): mean and worst layer."""

    mean: float
    worst: float
    domain_mean: float
    domain_worst: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Exact loads and values of one plan on one part."""

    instance: PlacementInstance
    part: Part
    layers: tuple[LayerLoads, ...]

    @cached_property
    def values(self) -> dict[str, dict[str, Fraction]]:
        """Objective name → layer mode → exact value, all nine."""
        return {
            name: values_of(self.instance, self.layers, name) for name in OBJECTIVES
        }

    @property
    def value(self) -> Fraction:
        """The optimized objective."""
        return objective_value(self.values, self.instance.objective)

    @cached_property
    def gpu_imbalance_L(self) -> tuple[Fraction, ...]:
        """Max/mean of pairs over plan GPUs, per layer; 1 without tokens."""
        return tuple(_max_over_mean(loads.pairs_G) for loads in self.layers)

    @cached_property
    def domain_imbalance_L(self) -> tuple[Fraction, ...]:
        """Max over domains of pairs per GPU over the mean, per layer."""
        domain_G = self.instance.topology.domain_G
        return tuple(
            _domain_max_over_mean(loads.pairs_G, domain_G) for loads in self.layers
        )

    @property
    def imbalance(self) -> Imbalance:
        """The summary of rule 26."""
        gpu, domain = self.gpu_imbalance_L, self.domain_imbalance_L
        return Imbalance(
            mean=float(sum(gpu) / len(gpu)),
            worst=float(max(gpu)),
            domain_mean=float(sum(domain) / len(domain)),
            domain_worst=float(max(domain)),
        )

    @cached_property
    def inter_domain_bytes(self) -> Fraction:
        """Bytes between different domains, both legs (rule 27)."""
        domain_G = self.instance.layout.domain_G
        return sum(
            (
                Fraction(legs.between(domain_G), loads.denominator) * size
                for loads in self.layers
                for legs, size in zip(
                    (loads.transfers, loads.combine),
                    self.instance.message_bytes,
                    strict=True,
                )
            ),
            Fraction(0),
        )

    @property
    def tokens(self) -> Fraction:
        """Tokens of the part; a counts table's as rule 11 counts them."""
        return tokens_of(self.part, len(self.layers))


def evaluate(
    instance: PlacementInstance, plan: PlacementPlan, part: Part
) -> Evaluation:
    """Judge a plan on a part of the workload, exactly.

    Duplicates on a GPU are scored as they are (rule 29); limits and caps are the
    caller's to check.
    """
    layers: list[LayerLoads] = []
    at_T: IntArray | None = None
    for layer, slots_GJ in enumerate(plan.slots_LGJ):
        split = layer_split(plan, layer)
        layers.append(layer_loads(instance, part, layer, slots_GJ, split, at_T))
        at_T = layers[-1].after_T
    if at_T is not None and isinstance(part, TokenPart):
        layers[-1] = brought_home(instance, layers[-1], at_T, part.source_T)
    return Evaluation(instance=instance, part=part, layers=tuple(layers))


def tokens_of(part: Part, layers: int) -> Fraction:
    """Return the tokens of a part; a counts table's as rule 11 counts them."""
    if isinstance(part, CountsPart):
        return Fraction(int(part.tokens_LE.sum()), part.top_k * layers)
    return Fraction(part.token_count)


def layer_split(plan: PlacementPlan, layer: int) -> dict[int, SplitWeights]:
    """Return the split weights of one layer index by expert."""
    return {
        expert: weights for (at, expert), weights in plan.split.items() if at == layer
    }


def _max_over_mean(pairs: ExactArray) -> Fraction:
    total = int(np.sum(pairs))
    return Fraction(int(pairs.max()) * len(pairs), total) if total else Fraction(1)


def _domain_max_over_mean(pairs_G: ExactArray, domain_G: IntArray) -> Fraction:
    total = int(np.sum(pairs_G))
    if not total:
        return Fraction(1)
    # Of domains of one size only the fullest can have the most per GPU.
    size_N = np.bincount(domain_G)
    pairs_N = np.zeros(size_N.size, dtype=pairs_G.dtype)
    np.add.at(pairs_N, domain_G, pairs_G)
    per_gpu = max(
        Fraction(int(pairs_N[size_N == size].max()), size)
        for size in np.unique(size_N).tolist()
    )
    return per_gpu * len(pairs_G) / total
