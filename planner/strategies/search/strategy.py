"""The strategy ``search``: every layer annealed on its own, several at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.errors import UsageError
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.base import (
    STRATEGIES,
    Bound,
    Event,
    Limits,
    Progress,
    SolveResult,
)
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
    repaired,
)
from planner.strategies.judging import judged_layer
from planner.strategies.legal import legal_starts
from planner.strategies.search.bound import dedup_bound
from planner.strategies.search.layer import (
    LayerResult,
    Placed,
    Problem,
    problem_of,
    search_layer,
)
from planner.strategies.search.sharing import share_moves
from planner.traffic.base import TRAFFIC
from planner.workload.parts import CountsPart

PROPOSALS_PER_SLOT = 150_000
"""Moves tried in one layer for each of its slots, if time allows."""
RESERVE_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """Slots of one layer as judged: by how much they exceed the caps, their value."""

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights]
    excess: Fraction
    value: Fraction
    origin: str

    @property
    def rank(self) -> tuple[Fraction, Fraction]:
        """Order of preference: caps first, then the objective."""
        return self.excess, self.value


@STRATEGIES.register("search")
def solve_search(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Anneal every layer from its best start (``docs/search.md``).

    Never worse on the planning part than the best start that keeps the caps. Where
    the work ends before the time does, the result depends on the seed alone.

    Raises
    ------
    UsageError
        If traffic ties the layers together.
    """
    if any(TRAFFIC.get(view.traffic).chained for view in instance.views):
        raise UsageError(
            f"strategy search improves layers one by one, which traffic "
            f"{instance.traffic} ties together: use --strategy auto or flow"
        )
    begun = clock.now()
    instance, starts = share_moves(instance, limits, starts)
    given = list(starts) or _own_starts(instance, limits.seconds)
    plans = legal_starts(instance, given)
    layers = _best_starts(instance, plans)
    judging = (clock.now() - begun) / (len(layers) * len(plans))
    note = why_not(instance)
    problem = None
    if note is None:
        try:
            problem = problem_of(instance, limits.seconds / len(layers))
        except ValueError as error:
            note = f"search left out: {error}"
    bound = dedup_bound(instance, limits)
    if problem is None:
        return _result(instance, layers, "complete", (note or "",), bound)
    deadline = begun + limits.seconds - RESERVE_SECONDS - 2 * judging
    run = _Run(problem, layers, limits)
    history: list[Event] = []

    def report(found: Found) -> None:
        run.keep(found)
        value = _total(instance, run.best)
        seconds = clock.now() - begun
        least = bound.value if bound else None
        history.append(Event(seconds=seconds, objective=value, bound=least))
        if progress is not None:
            progress(history[-1])

    share = Share(workers=limits.threads, left=lambda: max(0.0, deadline - clock.now()))
    ENGINES.get(limits.engine)(run.improve, range(len(layers)), share, report)
    reason = "complete" if run.finished else "limit"
    notes = (f"search tried {run.proposals:,} moves",)
    return _result(instance, run.best, reason, notes, bound, history)


class _Run:
    """Improves layers and keeps what is better."""

    def __init__(
        self, problem: Problem, layers: Sequence[_Layer], limits: Limits
    ) -> None:
        self._problem, self._instance = problem, problem.instance
        self._starts, self._seed = list(layers), limits.seed
        self.best = list(layers)
        self.proposals, self.finished = 0, True
        # Compiling must not eat the time of the first layers.
        self._search(0, seconds=0.0, proposals=1)

    def improve(self, layer: int, seconds: float) -> tuple[LayerResult, _Layer]:
        """Search one layer and judge what was found."""
        proposals = PROPOSALS_PER_SLOT * self._instance.slot_count
        found = self._search(layer, seconds=seconds, proposals=proposals)
        return found, _judged(self._instance, layer, *found.placed, "search")

    def keep(self, found: Found) -> None:
        """Keep what is better than the best of its layer."""
        for layer, (result, judged) in found:
            self.proposals += result.proposals
            self.finished = self.finished and result.finished
            self.best[layer] = min(self.best[layer], judged, key=lambda each: each.rank)

    def _search(self, layer: int, *, seconds: float, proposals: int) -> LayerResult:
        return search_layer(
            self._problem,
            layer,
            Placed(self._starts[layer].slots_GJ, self._starts[layer].split),
            seconds=seconds,
            seed=self._seed * 1_000_003 + layer,
            most_proposals=proposals,
        )


def why_not(instance: PlacementInstance) -> str | None:
    """Say why there is nothing to search, if so."""
    if any(isinstance(each.planning, CountsPart) for each in instance.workloads):
        return "search needs the tokens of a trace; the best start was kept"
    if len(instance.workloads) > 1 and instance.objective.name == "gpu_tokens":
        return "search places several workloads by their links, balance by GPU load"
    if instance.layout.ep == 1:
        return "one GPU holds every expert: nothing to place"
    return None


def _judged(
    instance: PlacementInstance,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
    origin: str,
) -> _Layer:
    value, excess = judged_layer(instance, layer, slots_GJ, split)
    return _Layer(
        slots_GJ=slots_GJ, split=split, excess=excess, value=value, origin=origin
    )


def _total(instance: PlacementInstance, layers: Sequence[_Layer]) -> float | None:
    """The objective, where it is a function of the layers' values."""
    if instance.objective.layers == "pipelined":
        return None
    values = [layer.value for layer in layers]
    worst = instance.objective.layers == "worst_layer"
    return float(max(values) if worst else sum(values, Fraction(0)))


def _result(
    instance: PlacementInstance,
    layers: Sequence[_Layer],
    reason: str,
    notes: tuple[str, ...],
    bound: Bound | None,
    history: Sequence[Event] = (),
) -> SolveResult:
    plan = PlacementPlan(
        layer_numbers=instance.model.moe_layers,
        slots_LGJ=np.stack([layer.slots_GJ for layer in layers]),
        split={
            (at, expert): weights
            for at, layer in enumerate(layers)
            for expert, weights in layer.split.items()
        },
    )
    if instance.objective.layers == "pipelined":
        notes = (*notes, "search improves layers one by one, not their pipelined sum")
    return SolveResult(
        plan=plan,
        reason=reason,
        limit=clock.limit_name() if reason == "limit" else None,
        bound=bound,
        history=tuple(history),
        layer_strategies=tuple(layer.origin for layer in layers),
        notes=notes,
    )


def _own_starts(instance: PlacementInstance, seconds: float) -> list[PlacementPlan]:
    plans = []
    for name in BASELINES.names():
        try:
            plan = published_plan(instance, name, seconds)
            plans.append(repaired(instance, plan))
        except AbsentBaselineError:
            continue
    return plans


def _best_starts(
    instance: PlacementInstance, plans: Sequence[PlacementPlan]
) -> list[_Layer]:
    """Return for every layer the start that keeps the caps best, then is best."""
    return [
        min(
            (
                _judged(
                    instance,
                    layer,
                    plan.slots_LGJ[layer].copy(),
                    layer_split(plan, layer),
                    "start",
                )
                for plan in plans
            ),
            key=lambda each: each.rank,
        )
        for layer in range(instance.layer_count)
    ]
