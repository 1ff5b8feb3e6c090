"""How strategies compare layers: the exact objective, and the caps."""

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.evaluator import Evaluation
from planner.evaluator.joint import combined, planning_tokens
from planner.evaluator.layer import layer_loads
from planner.evaluator.objective import leg_peaks
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.workload.parts import CountsPart

LAYER_SECONDS, CHOICE_SECONDS = 1e-3, 1.5e-7
"""Rates of counted work: judging a layer, and every (token, expert) pair in it."""


def judged_layer(
    instance: PlacementInstance,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> tuple[Fraction, Fraction]:
    """Return a layer's value and by how much it exceeds the caps (0 if kept).

    Of several workloads the values are combined and the excesses added.
    """
    judged = judged_views(instance, layer, slots_GJ, split)
    if len(judged) == 1:
        return judged[0]
    values = [value for value, _ in judged]
    excess = sum((excess for _, excess in judged), Fraction(0))
    return combined(instance, values, planning_tokens(instance)), excess


def judged_views(
    instance: PlacementInstance,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> list[tuple[Fraction, Fraction]]:
    """Return value and excess of a layer for every workload."""
    return [_judged(view, layer, slots_GJ, split) for view in instance.views]


def excess_of(evaluation: Evaluation, layer: int) -> Fraction:
    """Return by how much a layer of a whole plan exceeds the caps (0 if kept)."""
    caps = evaluation.instance.caps
    return sum(
        (
            max(Fraction(0), reached_L[layer] - cap)
            for cap, reached_L in (
                (caps.gpu_at(layer), evaluation.gpu_imbalance_L),
                (caps.domain_at(layer), evaluation.domain_imbalance_L),
            )
            if cap is not None
        ),
        Fraction(0),
    )


def _judged(
    instance: PlacementInstance,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> tuple[Fraction, Fraction]:
    part = instance.planning
    choices = 0 if isinstance(part, CountsPart) else part.experts_LTK[layer].size
    clock.spend(LAYER_SECONDS + CHOICE_SECONDS * choices)
    loads = layer_loads(instance, part, layer, slots_GJ, split)
    peaks = leg_peaks(instance, loads, instance.objective.name)
    value = sum((leg.value for leg in peaks), Fraction(0))
    total, gpus = int(np.sum(loads.pairs_G)), len(loads.pairs_G)
    if not total:
        return value, Fraction(0)
    excess = Fraction(0)
    of_gpu, of_domain = instance.caps.gpu_at(layer), instance.caps.domain_at(layer)
    if of_gpu is not None:
        most = Fraction(int(loads.pairs_G.max()) * gpus, total)
        excess += max(Fraction(0), most - of_gpu)
    if of_domain is not None:
        most = max(
            Fraction(int(loads.pairs_G[list(members)].sum()) * gpus, total)
            / len(members)
            for members in instance.topology.domains
        )
        excess += max(Fraction(0), most - of_domain)
    return value, excess
