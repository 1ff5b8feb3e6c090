"""The strategy ``balance``: the load of GPUs alone, layer by layer, with proofs.

Links are ignored (``gpu_tokens``), so GPUs are alike and a layer is a matter of how
many copies each expert gets and which share a GPU.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np

from planner import clock
from planner.arrays import IdArray
from planner.engine import ENGINES
from planner.engine.base import Found, Share, Work
from planner.errors import InfeasibleError, UsageError
from planner.evaluator.evaluation import layer_split
from planner.evaluator.nesting import keeps_groups
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.balance.bound import LayerBound
from planner.strategies.balance.even import place_even
from planner.strategies.balance.joint import solve_joint, why_not_joint
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.nested import place_nested, why_not_nested
from planner.strategies.balance.placed import PlacedLayer, counted_value
from planner.strategies.balance.searches import compile_searches
from planner.strategies.balance.weighted.placing import place_weighted
from planner.strategies.base import (
    STRATEGIES,
    Event,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.base import LayerBound as ProvenBound
from planner.strategies.baselines.base import expert_loads
from planner.strategies.judging import judged_layer
from planner.workload.parts import CountsPart

Placer = Callable[[PlacementInstance, int, Effort, float], PlacedLayer]
PLACERS: dict[str, Placer] = {"even": place_even, "weighted": place_weighted}
"""How a layer with spare copies is placed, by selection: where selections part."""
RESERVE = 0.97
AGAIN = 0.03
"""Share of the limit that must be left for another turn of unfinished layers."""
"""Share of the time that layers may use; judging takes the rest."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Layer:
    """A layer as judged: slots, split, by how much it exceeds caps, its value."""

    slots_GJ: IdArray
    split: Mapping[int, SplitWeights]
    excess: Fraction
    value: Fraction
    origin: str
    placed: PlacedLayer

    @property
    def rank(self) -> tuple[Fraction, Fraction]:
        """Order of preference: caps first, then the objective."""
        return self.excess, self.value

    @property
    def bound(self) -> LayerBound:
        """The bound of its objective."""
        return self.placed.bound

    @property
    def gap(self) -> Fraction:
        """(value − bound) / value."""
        return 1 - self.bound.value / self.value if self.value else Fraction(0)


def why_not(instance: PlacementInstance) -> str | None:
    """Say why this strategy does not apply, or None if it does."""
    spare = instance.slot_count > instance.model.experts
    if instance.objective.name != "gpu_tokens":
        return "balance is for the objective gpu_tokens: it ignores links"
    if instance.objective.layers == "pipelined":
        return "balance takes layers one by one; pipelined adds them up per GPU"
    if spare and instance.selection not in PLACERS:
        known = ", ".join(sorted(PLACERS))
        return (
            f"balance with several copies is for selection {known}: under "
            f"{instance.selection} the load of a copy depends on where the others are"
        )
    nested = why_not_nested(instance)
    if nested is not None:
        return nested
    if len(instance.workloads) > 1:
        return why_not_joint(instance)
    if instance.layout.sets > 1 and not isinstance(instance.planning, CountsPart):
        return "balance needs one EP set: the sets of a trace have different tokens"
    return None


@STRATEGIES.register("balance")
def solve_balance(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Even out the GPUs of every layer and bound each (docs/balance.md).

    Never worse on the planning part than the best of ``starts`` that keeps the caps.

    Raises
    ------
    UsageError
        Where the strategy does not apply, with the reason.
    InfeasibleError
        If a layer's bound proves that the GPU cap cannot be kept.
    SolverError
        If the solver fails.
    """
    reason = why_not(instance)
    if reason is not None:
        raise UsageError(reason)
    if len(instance.workloads) > 1:
        return solve_joint(instance, limits, starts, progress)
    run = _Run(instance, limits, starts, progress)
    layers = run.all_layers()
    return _result(instance, layers, run.history)


class _Run:
    """Shares the time left among the layers left; keeps the history."""

    def __init__(
        self,
        instance: PlacementInstance,
        limits: Limits,
        starts: Sequence[PlacementPlan],
        progress: Progress | None,
    ) -> None:
        self._instance, self._limits = instance, limits
        self._starts, self._progress = nesting(instance, starts), progress
        self._begun = clock.now()
        self._layers: list[_Layer | None] = [None] * instance.layer_count
        self.history: list[Event] = []
        self._place = _placer(instance)

    def all_layers(self) -> list[_Layer]:
        """Place every layer by what pays most; then the widest gaps thoroughly."""
        # Compiling must not eat the time of the first layers.
        compile_searches()
        self._each(self._first, list(range(self._instance.layer_count)))
        waiting = self._waiting(lambda layer: True)
        while waiting and self._left() > AGAIN * self._limits.seconds:
            self._each(self._more, waiting)
            # What some layers did not need is for those whose share ran out.
            waiting = self._waiting(lambda layer: not layer.placed.finished)
        return [layer for layer in self._layers if layer is not None]

    def _waiting(self, wanted: Callable[[_Layer], bool]) -> list[tuple[int, _Layer]]:
        """Return the layers that more work may help, the widest gaps first."""
        waiting = [
            (at, layer)
            for at, layer in enumerate(self._layers)
            if layer is not None and layer.placed.more is not None and wanted(layer)
        ]
        return sorted(waiting, key=lambda each: -each[1].gap)

    def _left(self) -> float:
        """Return the seconds left for layers."""
        spent = clock.now() - self._begun
        return max(0.0, self._limits.seconds * RESERVE - spent)

    def _each(self, work: Work, items: Sequence[Any]) -> None:
        """Work on layers side by side, each with its share of the time left."""
        share = Share(workers=self._limits.threads, left=self._left)
        ENGINES.get(self._limits.engine)(work, items, share, self._keep)

    def _first(self, index: int, seconds: float) -> tuple[int, _Layer]:
        effort = Effort(
            goal=self._limits.gap, seed=self._limits.seed * 1_000_003 + index
        )
        placed = self._place(self._instance, index, effort, seconds)
        offers = [("balance", placed.slots_GJ, placed.split)]
        offers += [
            ("start", start.slots_LGJ[index], layer_split(start, index))
            for start in self._starts
        ]
        judged = [self._judged(index, offer, placed) for offer in offers]
        return index, min(judged, key=lambda each: each.rank)

    def _more(self, item: tuple[int, _Layer], seconds: float) -> tuple[int, _Layer]:
        index, held = item
        if seconds <= 0 or held.placed.more is None:
            return item
        placed = held.placed.more(self._instance, seconds)
        offer = ("balance", placed.slots_GJ, placed.split)
        judged = [self._judged(index, offer, placed), replace(held, placed=placed)]
        return index, min(judged, key=lambda each: each.rank)

    def _keep(self, found: Found) -> None:
        """Keep what layers have become; report."""
        for _, (index, layer) in found:
            _check_cap(self._instance, index, layer.bound)
            self._layers[index] = layer
        self._report()

    def _judged(
        self,
        index: int,
        offer: tuple[str, IdArray, Mapping[int, SplitWeights]],
        placed: PlacedLayer,
    ) -> _Layer:
        origin, slots_GJ, split = offer
        value, excess = self._value(index, slots_GJ, split)
        return _Layer(
            slots_GJ=slots_GJ,
            split=split,
            excess=excess,
            value=value,
            origin=origin,
            placed=placed,
        )

    def _value(
        self, index: int, slots_GJ: IdArray, split: Mapping[int, SplitWeights]
    ) -> tuple[Fraction, Fraction]:
        """Judge a layer; without caps, a table's loads need no routes."""
        caps = self._instance.caps
        if caps.gpu is None and caps.domain is None:
            value = counted_value(self._instance, index, slots_GJ, split)
            if value is not None:
                return value, Fraction(0)
        return judged_layer(self._instance, index, slots_GJ, split)

    def _report(self) -> None:
        done = [layer for layer in self._layers if layer is not None]
        known = len(done) == len(self._layers)
        event = Event(
            seconds=clock.now() - self._begun,
            objective=_total(self._instance, done) if known else None,
            bound=_bound(self._instance, done) if known else None,
        )
        self.history.append(event)
        if self._progress is not None:
            self._progress(event)


def _placer(instance: PlacementInstance) -> Placer:
    spare = instance.slot_count > instance.model.experts
    place = PLACERS[instance.selection] if spare else place_even
    return partial(place_nested, place) if instance.nested_groups else place


def nesting(
    instance: PlacementInstance, plans: Sequence[PlacementPlan]
) -> list[PlacementPlan]:
    """Return the plans that keep routing groups together, if that is asked."""
    return [
        plan
        for plan in plans
        if all(keeps_groups(instance, slots_GJ) for slots_GJ in plan.slots_LGJ)
    ]


def _check_cap(instance: PlacementInstance, index: int, bound: LayerBound) -> None:
    cap, pairs = instance.caps.gpu_at(index), int(expert_loads(instance)[index].sum())
    if cap is None or not pairs:
        return
    floor = bound.value * instance.layout.gpu_count / pairs
    if cap < floor:
        raise InfeasibleError(
            f"--imbalance-cap {float(cap)} is below the floor {float(floor):.4f} of "
            f"layer {instance.model.moe_layers[index]} ({bound.method} bound); raise "
            "the cap or add slots with --redundant"
        )


def _total(instance: PlacementInstance, layers: Sequence[_Layer]) -> float:
    values = [layer.value for layer in layers]
    worst = instance.objective.layers == "worst_layer"
    return float(max(values) if worst else sum(values, Fraction(0)))


def _bound(instance: PlacementInstance, layers: Sequence[_Layer]) -> float:
    values = [layer.bound.value for layer in layers]
    worst = instance.objective.layers == "worst_layer"
    return float(max(values) if worst else sum(values, Fraction(0)))


def _result(
    instance: PlacementInstance, layers: Sequence[_Layer], history: Sequence[Event]
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
    value, bound = _total(instance, layers), _bound(instance, layers)
    finished = all(layer.placed.finished for layer in layers)
    reason = "complete" if finished else "limit"
    if value <= bound * (1 + 1e-9):
        reason = "optimal"
    return SolveResult(
        plan=plan,
        reason=reason,
        limit=clock.limit_name() if reason == "limit" else None,
        bound=whole_bound(
            [
                ProvenBound(
                    value=float(layer.bound.value),
                    method=layer.bound.method,
                    of=_problem(instance),
                    branching=layer.bound.branching,
                    certificate=layer.bound.certificate,
                )
                for layer in layers
            ],
            instance.objective.layers,
        ),
        history=tuple(history),
        layer_strategies=tuple(layer.origin for layer in layers),
        notes=_notes(instance, layers),
    )


def _problem(instance: PlacementInstance) -> str:
    nested = ", groups nested" if instance.nested_groups else ""
    return f"gpu_tokens/{instance.selection}{nested}"


def _notes(instance: PlacementInstance, layers: Sequence[_Layer]) -> tuple[str, ...]:
    over = [
        instance.model.moe_layers[at]
        for at, layer in enumerate(layers)
        if layer.excess > 0
    ]
    if not over:
        return ()
    return (f"balance found no placement within the caps in layers {over}",)
