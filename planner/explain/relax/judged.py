"""What a relaxation is worth: exactly for this plan, at most, and by re-solving."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from planner.evaluator import JointEvaluation, evaluate_planning
from planner.explain.binding import what_binds
from planner.explain.relax.base import Question, Relaxation
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A lower bound and who says so: ``certificate`` (checked) or ``solver``."""

    bound: Fraction
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The best value found in a short time, and the solver's lower bound if any."""

    value: Fraction
    bound: Fraction | None


Prover = Callable[[Relaxation], Proof | None]
"""Returns a lower bound of the eased problem's objective, None if there is none."""

Solver = Callable[[PlacementInstance, PlacementPlan], Resolved | None]
"""Solves from a plan for a short time; None if it finds no plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One relaxation and what it changes, in the unit of the objective.

    Attributes
    ----------
    value
        Objective of ``of_plan`` after the change, exact. The optimum is no higher.
    bound, bound_by
        No plan whatsoever is below this after the change: by a ``certificate``
        checked again, or as the ``solver`` says. None where nobody says so.
    resolved
        Objective of the best plan found in the time given; an estimate of what a
        whole solve would find. None if it was not asked for or found none.
    gain, most, estimate
        The same as shares of the objective now: gained by ``of_plan``; the most any
        plan can gain; gained by re-solving beyond re-solving without the change.
    """

    kind: str
    what: str
    of_plan: str
    value: float
    bound: float | None
    bound_by: str | None
    resolved: float | None
    gain: float
    most: float | None
    estimate: float | None
    note: str


def judged(
    question: Question,
    relaxations: list[Relaxation],
    *,
    prover: Prover,
    solver: Solver | None = None,
) -> tuple[Outcome, ...]:
    """Judge every relaxation, those that gain most first, after nothing relaxed.

    Parameters
    ----------
    solver
        None re-solves nothing.
    """
    now = question.planning.value
    nothing = Relaxation(
        kind="nothing",
        what="nothing relaxed",
        instance=question.instance,
        plan=question.plan,
        same_loads=True,
        least_share=Fraction(1),
    )
    again = solver(question.instance, question.plan) if solver else None
    base = now if again is None else min(now, again.value)
    first = _outcome(question, nothing, prover(nothing), again, base=now)
    found = [
        _outcome(
            question,
            each,
            prover(each),
            solver(each.instance, each.plan) if solver else None,
            base=base,
        )
        for each in relaxations
    ]
    return (first, *sorted(found, key=_rank, reverse=True))


def _outcome(
    question: Question,
    relaxation: Relaxation,
    proof: Proof | None,
    resolved: Resolved | None,
    *,
    base: Fraction,
) -> Outcome:
    now, eased = question.planning.value, _eased(question, relaxation)
    value = eased.value
    said = None if resolved is None else resolved.bound
    if said is not None and (proof is None or said > proof.bound):
        proof = Proof(bound=said, by="solver")
    return Outcome(
        kind=relaxation.kind,
        what=relaxation.what,
        of_plan=relaxation.plan_words,
        value=float(value),
        bound=None if proof is None else float(proof.bound),
        bound_by=None if proof is None else proof.by,
        resolved=None if resolved is None else float(resolved.value),
        gain=_share(now - value, now),
        most=None if proof is None else max(0.0, _share(now - proof.bound, now)),
        estimate=None if resolved is None else _share(base - resolved.value, now),
        note="; ".join(filter(None, (relaxation.note, _then(question, eased)))),
    )


def _then(question: Question, eased: JointEvaluation) -> str:
    """Say what binds most often after the change, if it is something else."""
    before, after = (what_binds(found.first) for found in (question.planning, eased))
    if not after or after[0][0] in {name for name, _ in before}:
        return ""
    legs = sum(count for _, count in after)
    return f"then {after[0][0]} binds in {after[0][1]} of {legs} legs"


def _eased(question: Question, relaxation: Relaxation) -> JointEvaluation:
    """Re-evaluate the plan; loads that cannot have changed are not counted again."""
    if not relaxation.same_loads:
        return evaluate_planning(relaxation.instance, relaxation.plan)
    each = tuple(
        replace(evaluation, instance=view)
        for evaluation, view in zip(
            question.planning.each, relaxation.instance.views, strict=True
        )
    )
    return JointEvaluation(instance=relaxation.instance, each=each)


def _share(gained: Fraction, now: Fraction) -> float:
    return float(gained / now) if now else 0.0


def _rank(outcome: Outcome) -> tuple[float, float]:
    best = outcome.gain if outcome.estimate is None else outcome.estimate
    return best, outcome.most if outcome.most is not None else 0.0
