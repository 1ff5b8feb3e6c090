"""The best lower bound found so far, of one workload or of several under one plan."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from planner.evaluator.joint import combined, planning_tokens
from planner.instance import PlacementInstance
from planner.strategies.base import Bound, whole_bound


class Bounds:
    """Keeps the better bound of every layer; makes one of those of the workloads."""

    def __init__(self, instance: PlacementInstance) -> None:
        self._instance, self._mode = instance, instance.objective.layers
        self._whole: Bound | None = None
        self._each: list[Bound | None] = [None] * len(instance.views)

    @property
    def best(self) -> Bound | None:
        """The greatest bound of the objective, None without any."""
        joint = joint_bound(self._instance, self._each)
        known = [bound for bound in (self._whole, joint) if bound is not None]
        return max(known, key=lambda bound: bound.value, default=None)

    def offer(self, view: PlacementInstance, bound: Bound | None) -> None:
        """Take a bound of the instance, or of one of its workloads alone."""
        if bound is None:
            return
        if view is self._instance:
            self._whole = tighter(self._whole, bound, self._mode)
            return
        at = next(at for at, one in enumerate(self._instance.views) if one is view)
        self._each[at] = tighter(self._each[at], bound, self._mode)


def tighter(one: Bound | None, other: Bound, layer_mode: str) -> Bound:
    """Return the bound made of the better bound of every layer, or a better whole."""
    if one is None:
        return other
    best = [
        max(pair, key=lambda layer: layer.value)
        for pair in zip(one.layers, other.layers, strict=True)
    ]
    whole = whole_bound(best, layer_mode)
    for each in (one, other):
        if each.chain is not None and each.value > whole.value:
            whole = replace(whole, value=each.value, chain=each.chain)
    return whole


def joint_bound(
    instance: PlacementInstance, each: Sequence[Bound | None]
) -> Bound | None:
    """Return the bound of several workloads that their own bounds make (rule 25).

    No plan is better for a workload than a plan made for it alone; one without a
    bound counts as 0.
    """
    if len(each) == 1 or all(bound is None for bound in each):
        return None
    values = [Fraction(0) if bound is None else Fraction(bound.value) for bound in each]
    value = combined(instance, values, planning_tokens(instance))
    return Bound(value=float(value), layers=(), workloads=tuple(each))
