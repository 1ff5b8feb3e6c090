"""Values of rule 23, exact: maxima over links or GPUs of one layer or of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm

import numpy as np

from planner.arrays import ExactArray, FloatArray, IdArray
from planner.evaluator.layer import LayerLoads, layer_loads
from planner.instance import Objective, PlacementInstance
from planner.plan import SplitWeights
from planner.topology.graph import ClusterTopology, Weights
from planner.workload.parts import Part

_INT64_SAFE = 2.0**61
_FLOAT_BITS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The busiest entry of a load vector: its exact value and its index."""

    value: Fraction
    index: int


def peak(
    loads: ExactArray,
    weights: Weights | Sequence[Fraction],
    denominator: int,
    scale: int = 1,
) -> Peak:
    """Return the largest scale·loads[i]·weights[i]/denominator, the first of equals.

    Floats find the candidates, exact rationals decide among them (rule 31).
    """
    if not isinstance(weights, Weights):
        weights = Weights.of(weights)
    approximate = _near(loads) * weights.near_A
    if not approximate.size or approximate.max() <= 0:
        return Peak(value=Fraction(0), index=0)
    near = np.flatnonzero(approximate >= approximate.max() * (1 - 1e-9))
    best = Peak(value=Fraction(-1), index=0)
    known: dict[tuple[int, Fraction], Fraction] = {}
    for index in near.tolist():
        # Links that are alike tie by the hundred: each value is worked out once.
        key = int(loads[index]), weights.exact[index]
        if key not in known:
            known[key] = key[0] * key[1] * scale / denominator
        if known[key] > best.value:
            best = Peak(value=known[key], index=index)
    return best


def _near(loads: ExactArray) -> FloatArray:
    """Return the loads as floats, in a common unit if they are beyond floats."""
    beyond = 0
    if loads.dtype == object:
        most = max((abs(int(load)) for load in loads.flat), default=0)
        beyond = max(0, most.bit_length() - _FLOAT_BITS)
    return np.asarray(loads >> beyond if beyond else loads, dtype=np.float64)


def link_tokens(loads: ExactArray, topology: ClusterTopology) -> tuple[ExactArray, int]:
    """Return tokens per link [..., A] and the denominator it adds (rule 10)."""
    factor_A, common = topology.token_factors
    fits = loads.dtype != object and np.abs(loads).max(initial=0) < _INT64_SAFE / common
    tokens = (loads if fits else loads.astype(object)) * factor_A
    for link in topology.groups:
        tokens[..., link.index] = tokens[..., list(link.members)].sum(axis=-1)
    return tokens, common


def leg_peaks(
    instance: PlacementInstance, loads: LayerLoads, objective: str
) -> list[Peak]:
    """Return the busiest link of dispatch and combine, or the busiest GPU."""
    if objective == "gpu_tokens":
        return [peak(loads.pairs_G, _alike(len(loads.pairs_G)), loads.denominator)]
    topology, q = instance.topology, instance.routes.q
    if objective == "link_time":
        return [
            peak(load_A, topology.seconds_per_byte, loads.denominator * q, size)
            for load_A, size in zip(loads.loads_2A, instance.message_bytes, strict=True)
        ]
    tokens_2A, common = link_tokens(loads.loads_2A, topology)
    over = loads.denominator * q * common
    return [peak(tokens_A, instance.in_scope, over) for tokens_A in tokens_2A]


def layer_value(
    instance: PlacementInstance,
    part: Part,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> Fraction:
    """Return the layer's share of the instance's objective, exact.

    The sum over layers is the ``sequential`` value, the maximum ``worst_layer``.
    """
    loads = layer_loads(instance, part, layer, slots_GJ, split)
    peaks = leg_peaks(instance, loads, instance.objective.name)
    return sum((leg.value for leg in peaks), Fraction(0))


def values_of(
    instance: PlacementInstance, layers: Sequence[LayerLoads], name: str
) -> dict[str, Fraction]:
    """Return the objective ``name`` in all three layer modes."""
    per_layer = [
        sum((leg.value for leg in leg_peaks(instance, loads, name)), Fraction(0))
        for loads in layers
    ]
    return {
        "sequential": sum(per_layer, Fraction(0)),
        "pipelined": _pipelined(instance, layers, name),
        "worst_layer": max(per_layer),
    }


def _pipelined(
    instance: PlacementInstance, layers: Sequence[LayerLoads], name: str
) -> Fraction:
    """Return the largest load of all layers and legs together."""
    over = lcm(*(loads.denominator for loads in layers))
    if name == "gpu_tokens":
        pairs_G = _summed([(loads.pairs_G, loads.denominator) for loads in layers])
        return peak(pairs_G, _alike(len(pairs_G)), over).value
    topology, over = instance.topology, over * instance.routes.q
    parts = [(loads.loads_2A, loads.denominator) for loads in layers]
    loads_2A = _summed(parts, room=2 * max(1, *instance.message_bytes))
    if name == "link_tokens":
        tokens_2A, common = link_tokens(loads_2A, topology)
        both_A = tokens_2A[0] + tokens_2A[1]
        return peak(both_A, instance.in_scope, over * common).value
    dispatch, combine = instance.message_bytes
    bytes_A = loads_2A[0] * dispatch + loads_2A[1] * combine
    return peak(bytes_A, topology.seconds_per_byte, over).value


@lru_cache(maxsize=4)
def _alike(count: int) -> Weights:
    """Return the weights of so many GPUs, all the same."""
    return Weights.of([Fraction(1)] * count)


def _summed(parts: Sequence[tuple[ExactArray, int]], room: int = 1) -> ExactArray:
    """Add up arrays over their denominators' common multiple.

    int64 where even ``room`` times the sums are proven to fit.
    """
    common = lcm(*(denominator for _, denominator in parts))
    most = sum(
        float(np.abs(array).max(initial=0)) * (common // denominator)
        for array, denominator in parts
    )
    fits = most * room < _INT64_SAFE and all(
        array.dtype != object for array, _ in parts
    )
    kind = np.int64 if fits else object
    return sum(
        (array.astype(kind) * (common // denominator) for array, denominator in parts),
        np.zeros_like(parts[0][0], dtype=kind),
    )


def objective_value(
    values: Mapping[str, Mapping[str, Fraction]], objective: Objective
) -> Fraction:
    """Return the value of the optimized objective."""
    return values[objective.name][objective.layers]
