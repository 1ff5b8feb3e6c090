"""Values of rule 23, exact: maxima over links or GPUs of one layer or of all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np

from planner.arrays import BoolArray, ExactArray, IdArray
from planner.errors import UsageError
from planner.evaluator.layer import LayerLoads, layer_loads
from planner.instance import Objective, PlacementInstance
from planner.plan import SplitWeights
from planner.topology.graph import HOST_KINDS, SCALE_UP_KINDS, Link
from planner.workload.parts import Part


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The busiest entry of a load vector: its exact value and its index."""

    value: Fraction
    index: int


def peak(loads: ExactArray, weights: Sequence[Fraction], denominator: int) -> Peak:
    """Return the largest loads[i]·weights[i]/denominator, the first of equals.

    Floats find the candidates, exact rationals decide among them (rule 31).
    """
    approximate = np.asarray(loads, dtype=np.float64) * np.asarray(
        [float(weight) for weight in weights]
    )
    if not approximate.size or approximate.max() <= 0:
        return Peak(value=Fraction(0), index=0)
    near = np.flatnonzero(approximate >= approximate.max() * (1 - 1e-9))
    best = Peak(value=Fraction(-1), index=0)
    for index in near.tolist():
        value = Fraction(int(loads[index])) * weights[index] / denominator
        if value > best.value:
            best = Peak(value=value, index=index)
    return best


def scope_of(links: Sequence[Link], classes: Sequence[str] | None) -> BoolArray:
    """Return which links count for ``link_tokens`` [A] (rules 10 and 23).

    Raises
    ------
    UsageError
        If a class names no link of the topology.
    """
    inner = SCALE_UP_KINDS | HOST_KINDS
    known = sorted({link.link_class for link in links if not link.members})
    unknown = [name for name in classes or () if name not in known]
    if unknown:
        rule = f"no link has class {unknown[0]!r}; choose from {', '.join(known)}"
        raise UsageError(rule)
    edges = np.asarray(
        [
            not link.members
            and (link.link_class in classes if classes else link.kind not in inner)
            for link in links
        ],
        dtype=np.bool_,
    )
    if not edges.any():
        edges = np.asarray([not link.members for link in links], dtype=np.bool_)
    for link in links:
        if link.members:
            edges[link.index] = edges[list(link.members)].any()
    return edges


def link_tokens(loads: ExactArray, links: Sequence[Link]) -> tuple[ExactArray, int]:
    """Return tokens per link [..., A] and the denominator it adds (rule 10)."""
    common = lcm(*(link.token_divisor for link in links))
    factor_A = [common // link.token_divisor for link in links]
    tokens = loads.astype(object) * np.asarray(factor_A, dtype=object)
    for link in links:
        if link.members:
            tokens[..., link.index] = tokens[..., list(link.members)].sum(axis=-1)
    return tokens, common


def seconds_per_transfer(
    instance: PlacementInstance,
) -> tuple[list[Fraction], list[Fraction]]:
    """Return bytes/β of every link for one dispatch and one combine transfer."""
    links = instance.topology.links
    dispatch, combine = instance.message_bytes
    return (
        [dispatch / link.bytes_per_s for link in links],
        [combine / link.bytes_per_s for link in links],
    )


def leg_peaks(
    instance: PlacementInstance, loads: LayerLoads, objective: str
) -> list[Peak]:
    """Return the busiest link of dispatch and combine, or the busiest GPU."""
    if objective == "gpu_tokens":
        ones = [Fraction(1)] * len(loads.pairs_G)
        return [peak(loads.pairs_G, ones, loads.denominator)]
    links, q = instance.topology.links, instance.routes.q
    if objective == "link_time":
        weights = seconds_per_transfer(instance)
        return [
            peak(loads.loads_2A[leg], weights[leg], loads.denominator * q)
            for leg in (0, 1)
        ]
    tokens_2A, common = link_tokens(loads.loads_2A, links)
    scope_A = scope_of(links, instance.objective.link_classes)
    inside = [Fraction(int(flag)) for flag in scope_A]
    return [
        peak(tokens_2A[leg], inside, loads.denominator * q * common) for leg in (0, 1)
    ]


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
    total = _sum_of_layers(layers)
    pipelined: Fraction
    if name == "link_time":
        pipelined = _pipelined_time(instance, total)
    elif name == "link_tokens":
        pipelined = _pipelined_tokens(instance, total)
    else:
        pipelined = leg_peaks(instance, total, name)[0].value
    return {
        "sequential": sum(per_layer, Fraction(0)),
        "pipelined": pipelined,
        "worst_layer": max(per_layer),
    }


def _sum_of_layers(layers: Sequence[LayerLoads]) -> LayerLoads:
    common = lcm(*(loads.denominator for loads in layers))

    def total(name: str) -> ExactArray:
        terms = [
            getattr(loads, name).astype(object) * (common // loads.denominator)
            for loads in layers
        ]
        summed: ExactArray = sum(terms[1:], terms[0])
        return summed

    return LayerLoads(
        pairs_G=total("pairs_G"),
        transfers_GG=total("transfers_GG"),
        combine_GG=total("combine_GG"),
        loads_2A=total("loads_2A"),
        denominator=common,
    )


def _pipelined_time(instance: PlacementInstance, total: LayerLoads) -> Fraction:
    dispatch, combine = instance.message_bytes
    bytes_A = total.loads_2A[0] * dispatch + total.loads_2A[1] * combine
    weights = [1 / link.bytes_per_s for link in instance.topology.links]
    return peak(bytes_A, weights, total.denominator * instance.routes.q).value


def _pipelined_tokens(instance: PlacementInstance, total: LayerLoads) -> Fraction:
    links = instance.topology.links
    tokens_2A, common = link_tokens(total.loads_2A, links)
    scope_A = scope_of(links, instance.objective.link_classes)
    inside = [Fraction(int(flag)) for flag in scope_A]
    both = tokens_2A[0] + tokens_2A[1]
    return peak(both, inside, total.denominator * instance.routes.q * common).value


def objective_value(
    values: Mapping[str, Mapping[str, Fraction]], objective: Objective
) -> Fraction:
    """Return the value of the optimized objective."""
    return values[objective.name][objective.layers]
