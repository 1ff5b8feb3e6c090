"""``milp``: the cut formulation per layer, by linear and mixed-integer solves.

Layers are separate problems. First every layer gets its LP bound, a rounding of the
LP and the best start; then branch and bound shares the time left, widest gap first.
Every placement seen is judged by the evaluator under the plan's own selection.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.engine import ENGINES
from planner.engine.base import Found, Share
from planner.errors import InfeasibleError, UsageError
from planner.evaluator.evaluation import layer_split
from planner.formulation.cut.encoding import CUTS
from planner.formulation.cut.layer import CLOSED, LayerSolve, Standing
from planner.formulation.cut.ports import ports_of
from planner.formulation.cut.problem import layer_problem
from planner.formulation.mathopt import BARRIER_COLUMNS
from planner.formulation.pairs.encoding import pair_encoding
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
from planner.traffic.base import TRAFFIC


@STRATEGIES.register("milp")
def solve_milp(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Place experts by the cut formulation (docs/formulation.md).

    Raises
    ------
    UsageError
        For a traffic mode or layer mode that is not a sum of layers of ``copies``.
    InfeasibleError
        If memory, slots or caps leave no plan.
    SolverError
        If the solver fails.
    """
    _check_scope(instance)
    check_fits(instance)
    return _Solve(instance, limits, progress).run(starts)


class _Solve:
    """One call of the strategy: layers, clock and history."""

    def __init__(
        self, instance: PlacementInstance, limits: Limits, progress: Progress | None
    ) -> None:
        self._instance, self._limits, self._progress = instance, limits, progress
        self._begun = clock.now()
        self._history: list[Event] = []
        self._ports = ports_of(instance)
        self._pairs = pair_encoding(instance, self._ports)
        self._layers = [self._layer(layer) for layer in range(instance.layer_count)]

    def _layer(self, layer: int) -> LayerSolve:
        instance = self._instance

        def judge(
            slots_RJ: IdArray, split: Mapping[int, SplitWeights]
        ) -> tuple[Fraction, Fraction]:
            return judged_layer(instance, layer, slots_RJ, dict(split))

        copies = instance.slot_count > instance.model.experts
        free_split = copies and instance.selection == "weighted"
        return LayerSolve(
            layer_problem(instance, self._ports, layer),
            judge,
            name=f"layer {instance.model.moe_layers[layer]}",
            rank_of_G=_dp_rank(instance) if free_split else None,
            encoding=self._pairs or CUTS,
        )

    def run(self, starts: Sequence[PlacementPlan]) -> SolveResult:
        """Bound every layer, then branch where the gap is widest."""
        for number, layer in enumerate(self._layers):
            for start in starts:
                layer.offer(start.slots_LGJ[number], layer_split(start, number))
        self._report()
        self._each(
            self._layers,
            lambda layer, seconds: layer.start(seconds * (1.0 if layer.huge else 0.5)),
        )
        self._each(self._widest(), lambda layer, seconds: layer.relax(seconds))
        gap, seed = self._limits.gap, self._limits.seed
        small = [layer for layer in self._widest() if not layer.large]
        self._each(small, lambda layer, seconds: layer.branch(seconds, gap, seed))
        for layer in self._layers:
            layer.settle()
        self._report()
        return self._result()

    def _widest(self) -> list[LayerSolve]:
        """Layers worth more work, the widest gap first; none if the gap is kept."""
        if self._gap() <= self._limits.gap:
            return []
        return sorted(
            (layer for layer in self._layers if layer.open),
            key=lambda layer: layer.bound - float(layer.value),
        )

    def _left(self) -> float:
        return self._limits.seconds - (clock.now() - self._begun)

    def _each(
        self, layers: Sequence[LayerSolve], work: Callable[[LayerSolve, float], None]
    ) -> None:
        """Work on the layers side by side, in order.

        A small layer gets its share of the time left; a large one all of it, since
        an LP that is cut off tells nothing: then some layers are done and others
        not, rather than none. What is known about a layer is sent; its model stays
        where the work is done.
        """

        def one(item: tuple[int, Standing], seconds: float) -> Standing:
            layer = self._layers[item[0]]
            layer.take(item[1])
            if seconds > 0 or layer.slots_RJ is None:
                work(layer, max(0.1, seconds))
            return layer.standing()

        def done(found: Found) -> None:
            for (number, _), standing in found:
                self._layers[number].take(standing)
            self._report()

        share = Share(
            workers=self._limits.threads,
            # The solver stops a little late; the margin keeps the whole in time.
            left=lambda: 0.95 * self._left(),
            in_turn=lambda item: self._layers[item[0]].large,
        )
        items = [(self._layers.index(layer), layer.standing()) for layer in layers]
        ENGINES.get(self._limits.engine)(one, items, share, done)

    def _values(self) -> tuple[float, float]:
        """Objective and bound of all layers together."""
        values = [float(layer.value) for layer in self._layers]
        bounds = [layer.bound for layer in self._layers]
        if self._instance.objective.layers == "worst_layer":
            return max(values), max(bounds)
        return sum(values), sum(bounds)

    def _gap(self) -> float:
        value, bound = self._values()
        return (value - bound) / value if value else 0.0

    def _report(self) -> None:
        known = all(layer.slots_RJ is not None for layer in self._layers)
        value, bound = self._values()
        event = Event(
            seconds=clock.now() - self._begun,
            objective=value if known else None,
            bound=bound,
        )
        self._history.append(event)
        if self._progress is not None:
            self._progress(event)

    def _result(self) -> SolveResult:
        layers, instance = self._layers, self._instance
        reason = self._reason()
        return SolveResult(
            plan=PlacementPlan(
                layer_numbers=instance.model.moe_layers,
                slots_LGJ=np.stack(
                    [layer.slots_RJ for layer in layers if layer.slots_RJ is not None]
                ),
                split={
                    (number, expert): weights
                    for number, layer in enumerate(layers)
                    for expert, weights in layer.split.items()
                },
            ),
            reason=reason,
            limit=clock.limit_name() if reason == "limit" else None,
            bound=whole_bound(
                [_proof(layer) for layer in layers], instance.objective.layers
            ),
            history=tuple(self._history),
            layer_strategies=("milp",) * len(layers),
            notes=self._notes(),
        )

    def _reason(self) -> str:
        value, bound = self._values()
        if value <= bound * CLOSED:
            return "optimal"
        if self._gap() <= self._limits.gap:
            return "gap"
        return "limit" if any(layer.open for layer in self._layers) else "complete"

    def _notes(self) -> tuple[str, ...]:
        notes = [layer.trouble for layer in self._layers if layer.trouble]
        relaxed = () if self._pairs else self._ports.relaxed
        if relaxed:
            shown = ", ".join(relaxed[:3]) + (" …" if len(relaxed) > 3 else "")
            notes.append(
                f"the bound under-estimates {len(relaxed)} links whose load depends "
                f"on who sends to whom ({shown}); it stays valid"
            )
        if any(layer.large and layer.open for layer in self._layers):
            notes.append(
                "milp does not branch on models of this size: it bounds them and "
                "improves splits and roundings; the search improves the placement"
            )
        return tuple(notes)


def branches(instance: PlacementInstance) -> bool:
    """Whether layers are small enough for branch and bound, in the cut formulation."""
    problem = layer_problem(instance, ports_of(instance), 0)
    return CUTS.columns(problem) <= BARRIER_COLUMNS


def _proof(layer: LayerSolve) -> LayerBound:
    """What proves a layer's bound (rule 28: the problem it belongs to)."""
    nearest = layer.problem.nearest and layer.method != "count"
    return LayerBound(
        value=layer.bound,
        method=layer.method,
        of="copies/nearest" if nearest else "copies/weighted",
        branching=layer.branched,
        certificate=layer.certificate,
    )


def _dp_rank(instance: PlacementInstance) -> IntArray:
    rank_G = np.zeros(instance.layout.gpu_count, dtype=np.int64)
    for rank, group in enumerate(instance.layout.attention_groups):
        rank_G[list(group)] = rank
    return rank_G


def _check_scope(instance: PlacementInstance) -> None:
    if instance.traffic != "copies":
        chained = TRAFFIC.get(instance.traffic).chained
        why = (
            "what an expert costs depends on the layer before"
            if chained
            else "what a merged transfer saves is not a sum over experts"
        )
        raise UsageError(
            f"strategy milp plans traffic copies, not {instance.traffic}: {why}; "
            "use --strategy auto"
        )
    if instance.objective.layers == "pipelined":
        raise UsageError(
            "strategy milp plans layers one by one, and pipelined adds their loads "
            "per link; use --strategy auto, or --layers sequential or worst_layer"
        )


def check_fits(instance: PlacementInstance) -> None:
    experts, slots = instance.model.experts, instance.slots_per_gpu
    if instance.slot_count < experts:
        raise InfeasibleError(
            f"{experts} experts do not fit in {instance.slot_count} slots "
            f"({instance.layout.ep} GPUs × {slots}); raise --redundant by at least "
            f"{experts - instance.slot_count}"
        )
    if slots > experts:
        raise InfeasibleError(
            f"{slots} slots per GPU cannot hold distinct experts of {experts}; lower "
            "--redundant"
        )
    short_G = instance.memory_bytes_G - instance.memory_limit_G
    worst = int(np.argmax(short_G))
    if short_G[worst] > 0:
        raise InfeasibleError(
            f"{instance.topology.gpus[worst].id} lacks {int(short_G[worst])} bytes of "
            f"memory for {slots} slots per layer; lower --redundant, --kv-tokens or "
            "--batch-tokens"
        )
