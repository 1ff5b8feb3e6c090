"""What a relaxation is: the same problem with one thing eased, and the plan in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from planner.evaluator import JointEvaluation
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is relaxed: a judged plan, and by how much to ease.

    Attributes
    ----------
    by
        Share by which links are made faster.
    cap_step
        By how much an imbalance cap is raised.
    """

    instance: PlacementInstance
    plan: PlacementPlan
    planning: JointEvaluation
    by: float = 0.1
    cap_step: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """One thing eased.

    Attributes
    ----------
    kind
        Name of the family: ``link``, ``slots``, ``cap``, ``selection``.
    what
        What is eased, in words.
    instance
        The eased problem.
    plan
        The plan in it: the same one wherever it is still legal.
    plan_words
        What that plan is, where it is not the same one.
    same_loads
        Whether the plan's loads are those it had, so that only maxima change.
    note
        What a reader should know, such as what it needs; empty if nothing.
    adapted
        Turns a layer's certificate into one that proves more of the eased problem
        than the certificate as it is; None keeps it.
    least_share
        Every plan keeps at least this share of its objective; 0 if nothing is known.
    """

    kind: str
    what: str
    instance: PlacementInstance
    plan: PlacementPlan
    plan_words: str = "this plan"
    same_loads: bool = False
    note: str = ""
    adapted: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    least_share: Fraction = Fraction(0)


RELAXATIONS: Registry[Callable[[Question], list[Relaxation]]] = Registry("relaxation")
"""Each returns what can be eased of its family; empty where nothing can."""
