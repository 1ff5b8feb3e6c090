"""The strategy ``priced``: layers side by side, each by :func:`place`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.errors import SolverError, UsageError
from planner.evaluator.evaluation import layer_split
from planner.formulation.cut.as_one_level import (
    certificate_of,
    obstacle,
    one_level_of,
    split_weights,
)
from planner.formulation.cut.decode import held_of, slots_of
from planner.formulation.cut.ports import Ports, ports_of
from planner.formulation.cut.problem import layer_problem
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.base import (
    STRATEGIES,
    Event,
    LayerBound,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.judging import judged_layer
from planner.strategies.milp import check_fits
from planner.strategies.priced.place import CLOSED, place

_DISAGREEMENT = 1e-6
"""A bound above a judged value by more than this means that the model is wrong."""
_LEAST_SECONDS = 0.1
_SHARE = 0.9
"""Share of a layer's time for placing; judging and the certificate take the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layer:
    """The best slots of a layer, as judged, and what bounds them."""

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights]
    value: Fraction
    origin: str
    bound: LayerBound
    rounds: int


@STRATEGIES.register("priced")
def solve_priced(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Place copies on one level of ports with a free split (docs/priced.md).

    Never worse on the planning part than a start.

    Raises
    ------
    UsageError
        If the instance is no single level of ports, or copies cannot share freely.
    InfeasibleError
        If memory or slots leave no plan.
    SolverError
        If the solver fails.
    """
    reason = why_not(instance)
    if reason is not None:
        raise UsageError(reason)
    check_fits(instance)
    ports = ports_of(instance)
    run = _Run(instance, ports, limits, starts)
    run.progress = progress
    run.all_layers()
    return run.result()


def why_not(instance: PlacementInstance) -> str | None:
    """Say why this strategy does not apply, or None if it does."""
    if instance.traffic != "copies" or instance.objective.layers == "pipelined":
        return (
            "strategy priced plans traffic copies layer by layer, not "
            f"{instance.traffic} {instance.objective.layers}; use --strategy auto"
        )
    copies = instance.slot_count > instance.model.experts
    if copies and instance.selection != "weighted":
        return (
            f"strategy priced lets copies share freely, which {instance.selection} "
            "does not; use --selection weighted, or --strategy milp or search"
        )
    reason = obstacle(layer_problem(instance, ports_of(instance), 0))
    if reason is None:
        return None
    return (
        "strategy priced needs one port out and one port in per GPU and no other "
        f"limit, but here: {reason}; use --strategy milp or search"
    )


class _Run:
    """One call of the strategy: every layer gets its share of the time left."""

    def __init__(
        self,
        instance: PlacementInstance,
        ports: Ports,
        limits: Limits,
        starts: Sequence[PlacementPlan],
    ) -> None:
        self._instance, self._ports, self._limits = instance, ports, limits
        self._starts, self._begun = starts, clock.now()
        self._found: dict[int, _Layer] = {}
        self._history: list[Event] = []
        self.progress: Progress | None = None

    def all_layers(self) -> None:
        """Solve the layers; threads that no layer needs share out its rounds."""
        numbers = range(self._instance.layer_count)
        share = Share(workers=self._limits.threads, left=self._left)
        ENGINES.get(self._limits.engine)(self._solved, numbers, share, self._keep)

    def _left(self) -> float:
        return self._limits.seconds - (clock.now() - self._begun)

    def _solved(self, number: int, seconds: float) -> _Layer:
        """Return the best of what is found for a layer and the starts."""
        instance, limits = self._instance, self._limits
        problem = layer_problem(instance, self._ports, number)
        level, experts = one_level_of(problem), problem.experts
        own = replace(
            limits,
            seconds=max(_LEAST_SECONDS, _SHARE * seconds),
            seed=limits.seed * 1_000_003 + number,
            threads=max(1, limits.threads // instance.layer_count),
        )
        found = place(
            level,
            own,
            starts=[
                held_of(start.slots_LGJ[number], experts) > 0 for start in self._starts
            ],
        )
        copies = instance.slot_count > experts
        split = (
            split_weights(level, found.placed_EN, found.from_EN, _dp_rank(instance))
            if copies
            else {}
        )
        bound = LayerBound(
            value=found.bound,
            method="prices",
            of="copies/weighted",
            certificate=certificate_of(problem, found.prices),
        )
        slots_GJ = slots_of(found.placed_EN)
        return self._best(number, slots_GJ, split, bound, found.rounds)

    def _best(
        self,
        number: int,
        slots_GJ: IdArray,
        split: Mapping[int, SplitWeights],
        bound: LayerBound,
        rounds: int,
    ) -> _Layer:
        offers = [("priced", slots_GJ, split)]
        for start in self._starts:
            own = layer_split(start, number)
            offers.append(("start", start.slots_LGJ[number], own))
        judged = [
            judged_layer(self._instance, number, slots, dict(weights))[0]
            for _, slots, weights in offers
        ]
        best = min(range(len(offers)), key=lambda at: judged[at])
        value, (origin, slots, weights) = judged[best], offers[best]
        if bound.value > float(value) * (1 + _DISAGREEMENT):
            raise SolverError(
                f"layer index {number}: bound {bound.value!r} above a plan's "
                f"{float(value)!r}: the model and the evaluator disagree"
            )
        return _Layer(
            slots_GJ=slots,
            split=weights,
            value=value,
            origin=origin,
            bound=replace(bound, value=min(bound.value, float(value))),
            rounds=rounds,
        )

    @property
    def _layers(self) -> list[_Layer]:
        """Layers solved so far, in their order."""
        return [self._found[number] for number in sorted(self._found)]

    def _totals(self) -> tuple[float, float]:
        """Objective and bound of the layers so far."""
        mode = self._instance.objective.layers
        values = [layer.value for layer in self._layers]
        value = max(values) if mode == "worst_layer" else sum(values, Fraction(0))
        bound = whole_bound([layer.bound for layer in self._layers], mode)
        return float(value), bound.value

    def _keep(self, found: Found) -> None:
        """Keep what layers have become; report."""
        self._found.update(found)
        done = len(self._layers) == self._instance.layer_count
        value, bound = self._totals()
        event = Event(
            seconds=clock.now() - self._begun,
            objective=value if done else None,
            bound=bound,
        )
        self._history.append(event)
        if self.progress is not None:
            self.progress(event)

    def result(self) -> SolveResult:
        """Return the layers as one plan with its evidence."""
        instance, layers = self._instance, self._layers
        value, bound = self._totals()
        reason = "limit"
        if value - bound <= self._limits.gap * value:
            reason = "gap"
        if value <= bound * CLOSED:
            reason = "optimal"
        return SolveResult(
            plan=PlacementPlan(
                layer_numbers=instance.model.moe_layers,
                slots_LGJ=np.stack([layer.slots_GJ for layer in layers]),
                split={
                    (number, expert): weights
                    for number, layer in enumerate(layers)
                    for expert, weights in layer.split.items()
                },
            ),
            reason=reason,
            limit=clock.limit_name() if reason == "limit" else None,
            bound=whole_bound(
                [layer.bound for layer in layers], instance.objective.layers
            ),
            history=tuple(self._history),
            layer_strategies=tuple(layer.origin for layer in layers),
            notes=(f"priced did {sum(layer.rounds for layer in layers)} full rounds",),
        )


def _dp_rank(instance: PlacementInstance) -> IntArray:
    rank_G = np.zeros(instance.layout.gpu_count, dtype=np.int64)
    for rank, group in enumerate(instance.layout.attention_groups):
        rank_G[list(group)] = rank
    return rank_G
