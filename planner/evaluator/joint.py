"""Several workloads under one plan: their values made one (rule 25)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from planner.evaluator.evaluation import Evaluation, Imbalance, evaluate, tokens_of
from planner.evaluator.objective import objective_value
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.workload.parts import Part


@dataclass(frozen=True, kw_only=True, eq=False)
class JointEvaluation:
    """Evaluations of one plan, one per workload of the instance.

    With one workload every figure is that workload's own; with more, values are per
    token and combined, and imbalance is the weighted mean (the worst for ``worst``).
    """

    instance: PlacementInstance
    each: tuple[Evaluation, ...]

    @property
    def first(self) -> Evaluation:
        """Evaluation of the first workload."""
        return self.each[0]

    @cached_property
    def values(self) -> dict[str, dict[str, Fraction]]:
        """Objective name → layer mode → exact value, all nine."""
        tokens = [one.tokens for one in self.each]
        return {
            name: {
                mode: combined(
                    self.instance, [one.values[name][mode] for one in self.each], tokens
                )
                for mode in modes
            }
            for name, modes in self.first.values.items()
        }

    @property
    def value(self) -> Fraction:
        """The optimized objective."""
        return objective_value(self.values, self.instance.objective)

    @property
    def imbalance(self) -> Imbalance:
        """The summary of rule 26: weighted mean over workloads, worst over all."""
        found = [one.imbalance for one in self.each]
        weights = [float(load.weight) for load in self.instance.workloads]
        pairs = list(zip(weights, found, strict=True))
        if len(pairs) == 1:
            return found[0]
        return Imbalance(
            mean=sum(weight * one.mean for weight, one in pairs),
            worst=max(one.worst for one in found),
            domain_mean=sum(weight * one.domain_mean for weight, one in pairs),
            domain_worst=max(one.domain_worst for one in found),
        )

    @property
    def tokens(self) -> Fraction:
        """Tokens of all workloads."""
        return sum((one.tokens for one in self.each), Fraction(0))


def combined(
    instance: PlacementInstance, values: Sequence[Fraction], tokens: Sequence[Fraction]
) -> Fraction:
    """Make one value of those of the workloads (rule 25).

    One workload keeps its value; several are divided by their tokens and averaged
    by weight, or the largest is taken.
    """
    if len(values) == 1:
        return values[0]
    rates = [
        value / count if count else Fraction(0)
        for value, count in zip(values, tokens, strict=True)
    ]
    if instance.objective.combine == "worst":
        return max(rates)
    weights = [load.weight for load in instance.workloads]
    return sum(
        (weight * rate for weight, rate in zip(weights, rates, strict=True)),
        Fraction(0),
    )


def evaluate_planning(
    instance: PlacementInstance, plan: PlacementPlan
) -> JointEvaluation:
    """Judge a plan on the planning parts."""
    parts = [workload.planning for workload in instance.workloads]
    return _evaluate(instance, plan, parts)


def evaluate_holdout(
    instance: PlacementInstance, plan: PlacementPlan
) -> JointEvaluation | None:
    """Judge a plan on what was held out; None unless every workload has a part."""
    parts = [
        workload.holdout
        for workload in instance.workloads
        if workload.holdout is not None
    ]
    if len(parts) < len(instance.workloads):
        return None
    return _evaluate(instance, plan, parts)


def planning_tokens(instance: PlacementInstance) -> list[Fraction]:
    """Return the tokens of the planning part of every workload."""
    return [
        tokens_of(workload.planning, instance.layer_count)
        for workload in instance.workloads
    ]


def _evaluate(
    instance: PlacementInstance, plan: PlacementPlan, parts: Sequence[Part]
) -> JointEvaluation:
    each = [
        evaluate(view, plan, part)
        for view, part in zip(instance.views, parts, strict=True)
    ]
    return JointEvaluation(instance=instance, each=tuple(each))
