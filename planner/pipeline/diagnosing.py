"""Which of the five effects gives what on a cluster with a trace (design §4)."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.errors import InfeasibleError, LimitError, PlannerError, UsageError
from planner.evaluator import evaluate_holdout, evaluate_planning
from planner.explain.effects import EffectRule, Room, Switch, rules
from planner.instance import PlacementInstance
from planner.manifest.figures import UNITS
from planner.options import SolveOptions
from planner.pipeline.problem import (
    Problem,
    Sources,
    TraceLike,
    build_problem,
    trace_list,
)
from planner.pipeline.solving import Announce, check_kept
from planner.pipeline.sources import Source
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)

NOTED = 0.05
"""Share by which the fullest home must differ to be worth a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A plan made otherwise, scored beside the one that sees everything.

    Attributes
    ----------
    what
        What was different.
    value
        Its objective; None where no plan was found or the difference cannot be.
    worth
        By how much that is above the plan that sees everything, as a share of it.
    baseline
        The least objective of any baseline where the plan runs.
    note
        Why there is no value, or what is wrong with the plan; empty if nothing.
    """

    what: str
    value: float | None = None
    worth: float | None = None
    baseline: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    """One effect: whether it applies, what it could give, what it was seen to give.

    Attributes
    ----------
    room
        Counted without solving; None where nothing can be counted.
    blind
        The plan of a planner that does not see the effect, run where it is there;
        None where it does not apply or nothing was solved.
    switched
        The plan for running without the effect where it is there, or with it where
        it is not; None where no option decides or nothing was solved.
    """

    letter: str
    name: str
    applies: bool
    because: str
    room: Room | None
    blind: Measured | None
    switched: Measured | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What was solved, each for as long, and scored on the part that is named.

    Attributes
    ----------
    value
        Objective of the plan that sees all effects: the better of two seeds, chosen
        on the planning part.
    noise
        By how much the two seeds differ there, as a share: less is no difference.
    balance
        The plan that balances GPUs and sees no link: what all five give together.
    """

    seconds: float
    value: float
    noise: float
    balance: Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Which effects apply to a cluster and a trace, and what they give.

    ``baselines`` are objectives by name; like those of the ablation they are of
    ``part``: ``holdout``, or ``planning`` where nothing is held out.
    """

    headline: str
    objective: str
    unit: str
    part: str
    effects: tuple[Diagnosed, ...]
    baselines: dict[str, float]
    ablation: Ablation | None


def diagnose(
    topology: Source,
    *,
    model: Source | None = None,
    trace: TraceLike | Sequence[TraceLike] | None = None,
    options: SolveOptions | None = None,
    ablate: bool = False,
    announce: Announce | None = None,
) -> Diagnosis:
    """Say which of the five effects apply, and what each gives.

    Parameters
    ----------
    ablate
        Solve with every effect unseen and switched in turn, ``options.time_limit``
        seconds each, and score the plans on unseen tokens where there are any.

    Other parameters are those of :func:`planner.pipeline.solve`.
    """
    options = options or SolveOptions()
    sources = Sources(
        topology=topology, model=model, traces=trace_list(trace), base=Path.cwd()
    )
    problem = build_problem(sources, options)
    instance = problem.instance
    if announce is not None:
        announce(problem.headline)
    ablated = _Ablated(sources, problem, announce) if ablate else None
    effects = tuple(_diagnosed(rule, instance, ablated) for rule in rules())
    return Diagnosis(
        headline=problem.headline,
        objective=f"{instance.objective.name} ({instance.objective.layers})",
        unit=UNITS[instance.objective.name]
        + ("/token" if len(instance.workloads) > 1 else ""),
        part=_part(instance),
        effects=effects,
        baselines=_baselines(instance),
        ablation=None if ablated is None else ablated.report(),
    )


def _diagnosed(
    rule: EffectRule, instance: PlacementInstance, ablated: "_Ablated | None"
) -> Diagnosed:
    seen = rule.seen(instance)
    blind = switched = None
    if ablated is not None:
        switch = rule.switched(instance, ablated.options)
        switched = None if switch is None else ablated.switched(switch)
        if seen.applies:
            blind = ablated.blind(rule.blind(instance), f"{seen.name} unseen")
    return Diagnosed(
        letter=rule.letter,
        name=seen.name,
        applies=seen.applies,
        because=seen.because,
        room=rule.room(instance),
        blind=blind,
        switched=switched,
    )


class _Ablated:
    """Solves of the same length: with every effect, and otherwise."""

    def __init__(
        self,
        sources: Sources,
        problem: Problem,
        announce: Announce | None,
    ) -> None:
        instance, options = problem.instance, problem.options
        self._sources, self._instance, self.options = sources, instance, options
        self._fullest = problem.homes[0].ratio
        self._baseline = min(_baselines(instance).values(), default=None)
        self._announce: Callable[[str], None] = announce or (lambda line: None)
        plans = [
            self._solved(
                instance, f"every effect seen, seed {options.seed + more}", more
            )
            for more in (0, 1)
        ]
        for plan in plans:
            check_kept(instance, plan)
        planned = [evaluate_planning(instance, plan).value for plan in plans]
        scores = [score(instance, plan) for plan in plans]
        self._value = scores[0] if planned[0] <= planned[1] else scores[1]
        self._noise = abs(scores[0] - scores[1]) / self._value if self._value else 0.0

    def blind(self, unseen: PlacementInstance, what: str) -> Measured:
        """Return what the plan of a planner that sees less is worth as it would run."""
        try:
            plan = self._solved(unseen, what)
        except (InfeasibleError, LimitError, UsageError) as error:
            return Measured(what=what, note=str(error))
        note = ""
        try:
            check_kept(self._instance, plan)
        except LimitError:
            note = "does not keep the caps"
        return self._measured(what, score(self._instance, plan), note)

    def switched(self, switch: Switch) -> Measured:
        """Return what a plan gives where other options are in force."""
        options = replace(self.options, **dict(switch.options))  # type: ignore[arg-type]
        try:
            problem = build_problem(self._sources, options)
            other, fullest = problem.instance, problem.homes[0].ratio
            plan = self._solved(other, switch.what)
        except PlannerError as error:
            return Measured(what=switch.what, note=str(error))
        note = f"fullest home has {fullest:.2f} of the mean tokens"
        differs = abs(fullest / self._fullest - 1) > NOTED
        found = self._measured(switch.what, score(other, plan), note if differs else "")
        return replace(found, baseline=min(_baselines(other).values(), default=None))

    def report(self) -> Ablation:
        """Return the figures of all effects together."""
        objective = replace(self._instance.objective, name="gpu_tokens")
        unseen = replace(self._instance, objective=objective)
        return Ablation(
            seconds=self.options.time_limit,
            value=self._value,
            noise=self._noise,
            balance=self.blind(unseen, "balance alone"),
        )

    def _measured(self, what: str, value: float, note: str = "") -> Measured:
        worth = value / self._value - 1 if self._value else 0.0
        return Measured(
            what=what, value=value, worth=worth, baseline=self._baseline, note=note
        )

    def _solved(
        self, instance: PlacementInstance, words: str, more: int = 0
    ) -> PlacementPlan:
        options = self.options
        self._announce(f"{options.time_limit:g} s: {words}")
        limits = Limits(
            seconds=options.time_limit,
            gap=options.gap,
            threads=options.threads or os.cpu_count() or 1,
            seed=options.seed + more,
        )
        return STRATEGIES.get(options.strategy)(instance, limits).plan


def score(instance: PlacementInstance, plan: PlacementPlan) -> float:
    """Return a plan's objective on unseen tokens where there are any."""
    found = evaluate_holdout(instance, plan) or evaluate_planning(instance, plan)
    return float(found.value)


def _part(instance: PlacementInstance) -> str:
    unseen = all(each.holdout is not None for each in instance.workloads)
    return "holdout" if unseen else "planning"


def _baselines(instance: PlacementInstance) -> dict[str, float]:
    found = {}
    for name in BASELINES.names():
        try:
            found[name] = score(instance, published_plan(instance, name))
        except AbsentBaselineError:
            continue
    return found
