"""``--policy free``: memory shared by all layers (``docs/replicas.md``).

All layers are planned with few, then more slots per GPU; which number each layer gets
is the best choice that memory, or the number asked for, allows (a knapsack over the
layers). The time that is left goes on with the layers as chosen.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.errors import InfeasibleError, LimitError, UsageError
from planner.evaluator import evaluate_planning
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.options import AUTO, SolveOptions
from planner.pipeline.attention import dearest_bill
from planner.pipeline.feasibility import mode_of
from planner.pipeline.groups import slots_per_gpu
from planner.pipeline.growing import GAIN, SHARES, Build, Growth, Step, filled
from planner.pipeline.problem import Problem
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.base import Bound, Limits, Progress, SolveResult, Strategy
from planner.strategies.baselines.base import expert_loads
from planner.strategies.judging import judged_layer
from planner.strategies.knapsack import Choice, best_choices, best_values
from planner.strategies.some_layers import some_layers

FEWER, MORE = 2, 4
"""Slots per GPU fewer, and more, than the mean that a layer may get."""
TRYING, MEAN_SHARE = 0.85, 0.45
"""Shares of the time: for finding what numbers of slots give, the mean alone."""
CAP_PENALTY = 1e3
"""What a cap exceeded by 1 counts, in shares of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rung:
    """A layer with a number of slots per GPU, as planned and judged."""

    slots: int
    value: Fraction
    excess: Fraction
    origin: str
    slots_GJ: IdArray
    split: dict[int, SplitWeights]

    @property
    def worth(self) -> float:
        """Value, far larger where a cap is exceeded."""
        return float(self.value) * (1 + CAP_PENALTY * float(self.excess))


def opened(options: SolveOptions, build: Build) -> Problem:
    """Return the problem with the fewest slots, and the options as asked for.

    Raises
    ------
    InfeasibleError
        If memory does not hold the fewest slots, or for another cause.
    """
    asked: Problem | None = None
    # Memory may hold fewer slots than were asked for.
    with suppress(InfeasibleError):
        asked = build(options)
    layout = options.layout
    if asked is not None:
        layout = str(asked.option_values["layout"])
    fewest = build(replace(options, redundant=AUTO, layout=layout))
    slots = f"{fewest.instance.slots_per_gpu} slots per GPU and layer"
    says = fewest.headline.replace(slots, f"{slots} or more, shared by all layers")
    return replace(fewest, options=options, headline=says)


def freed(
    problem: Problem,
    build: Build,
    strategy: Strategy,
    limits: Limits,
    progress: Progress | None = None,
) -> tuple[Problem, SolveResult]:
    """Return the plan whose layers have the slots that help most, and its problem.

    Parameters
    ----------
    problem
        That of the fewest slots, with the options asked for.
    build
        Makes the same problem with other options.

    Raises
    ------
    LimitError
        If no plan that keeps the caps was found with any number of slots.
    """
    growth, room = Growth(strategy, limits, progress), _Room(problem)
    steps = _tried(growth, limits, problem, room)
    rungs = [_rungs(steps, layer) for layer in range(problem.instance.layer_count)]
    chosen = _improved(
        growth, limits, problem, _chosen(problem.instance, room, rungs), steps
    )
    plan = _joined(problem.instance, chosen)
    taken = sum(rung.slots for rung in chosen)
    allowed = room.mean if room.asked is not None else taken // len(chosen)
    uniform = [step for step in steps if step.slots <= allowed]
    best = min(uniform, key=lambda step: step.value, default=None)
    if (
        best is not None
        and best.value < evaluate_planning(problem.instance, plan).value
    ):
        chosen = [_rung(best, layer) for layer in range(len(rungs))]
        plan = _joined(problem.instance, chosen)
    final = _final(problem, build, room, chosen)
    reasons = [step.result.reason for step in steps]
    limited = "limit" in reasons
    result = SolveResult(
        plan=plan,
        reason="limit" if limited else "complete",
        limit=next((s.result.limit for s in steps if s.result.limit), None),
        bound=_mean_bound(steps),
        history=tuple(event for step in steps for event in step.result.history),
        layer_strategies=tuple(rung.origin for rung in chosen),
        notes=(*steps[-1].result.notes, *_notes(problem, room, steps, chosen)),
    )
    return final, result


class _Room:
    """How many slots the layers may have together on every GPU."""

    def __init__(self, problem: Problem) -> None:
        self._problem, options = problem, problem.options
        instance = problem.instance
        self._layers, self._experts = instance.layer_count, instance.model.experts
        self.least = instance.slots_per_gpu
        self.asked: int | None = None
        if options.redundant != AUTO:
            ep = instance.layout.ep
            self.asked = slots_per_gpu(self._experts, ep, options)
        held = [
            slots
            for slots in range(self.least, self._experts + 1)
            if self.in_memory(slots) >= self._layers * slots
        ]
        self.mean = held[-1] if self.asked is None else min(held[-1], self.asked)

    def slots(self, most: int) -> int:
        """Return the slots of a GPU in all layers if none has more than ``most``."""
        held = min(self.in_memory(most), self._layers * self._experts)
        return held if self.asked is None else min(held, self._layers * self.asked)

    def in_memory(self, most: int) -> int:
        """Return how many memory holds; buffers grow with the largest layer."""
        instance = self._problem.instance
        left_G = instance.memory_limit_G - self.needs(most, 0)
        return int(left_G.min()) // instance.model.expert_bytes

    def needs(self, most: int, slots: int) -> IntArray:
        """Return bytes [G] with ``slots`` in all layers, ``most`` in the largest."""
        instance, options = self._problem.instance, self._problem.options
        modes = [mode_of(each) for each in instance.workloads]
        bill = dearest_bill(
            instance.model, instance.topology, instance.layout, most, options, modes
        )
        more = slots - self._layers * most
        needs_G: IntArray = bill.total_G + more * instance.model.expert_bytes
        return needs_G


class _Trial:
    """Plans all layers with one number of slots after the other."""

    def __init__(self, growth: Growth, problem: Problem) -> None:
        self._growth, self._problem = growth, problem
        self.steps: dict[int, Step] = {}
        self._failed: InfeasibleError | LimitError | None = None

    def with_slots(self, slots: int, seconds: float) -> None:
        """Plan with so many slots, from the plan with one fewer, or one more."""
        instance = _wide(self._problem.instance, slots)
        starts: tuple[PlacementPlan, ...] = ()
        if slots - 1 in self.steps:
            starts = filled(instance, self.steps[slots - 1])
        elif slots + 1 in self.steps:
            starts = _narrowed(instance, self.steps[slots + 1])
        problem = replace(self._problem, instance=instance)
        try:
            self.steps[slots] = self._growth.step(problem, seconds, starts)
        except (InfeasibleError, LimitError) as error:
            self._failed = error

    def found(self) -> list[Step]:
        """Return the steps by slots.

        Raises
        ------
        InfeasibleError, LimitError
            Where no number of slots had a plan.
        """
        if not self.steps and self._failed is not None:
            raise self._failed
        return [self.steps[slots] for slots in sorted(self.steps)]


def _tried(growth: Growth, limits: Limits, problem: Problem, room: _Room) -> list[Step]:
    """Plan all layers with equal numbers of slots: the mean, then others."""
    trial, experts = _Trial(growth, problem), problem.instance.model.experts
    most = min(room.mean + MORE, experts)
    if room.asked is None:
        share = TRYING * limits.seconds / min(most - room.least + 1, SHARES)
        for slots in range(room.least, most + 1):
            if trial.steps and growth.left < (1 - TRYING) * limits.seconds:
                break
            trial.with_slots(slots, share)
            if trial.steps and _gains_little(trial.found()):
                break
        return trial.found()
    trial.with_slots(room.mean, MEAN_SHARE * limits.seconds)
    others = [
        slots
        for step in range(1, max(FEWER, MORE) + 1)
        for slots, near in ((room.mean - step, FEWER), (room.mean + step, MORE))
        if step <= near and room.least <= slots <= experts
    ]
    share = max(0.0, TRYING - MEAN_SHARE) * limits.seconds / max(1, len(others))
    spare = room.slots(room.mean + 1) > problem.instance.layer_count * room.least
    for slots in others if spare else ():
        if growth.left < (1 - TRYING) * limits.seconds:
            break
        trial.with_slots(slots, share)
    return trial.found()


def _wide(instance: PlacementInstance, slots: int) -> PlacementInstance:
    """Return the instance of so many slots; memory is counted for all layers."""
    limit_G = instance.memory_limit_G
    return replace(instance, slots_per_gpu=slots, memory_bytes_G=limit_G)


def _narrowed(instance: PlacementInstance, step: Step) -> tuple[PlacementPlan, ...]:
    """Return the plan with a copy fewer on every GPU, where every GPU has one."""
    load_LE = expert_loads(instance)
    slots_LGJ = step.result.plan.slots_LGJ[:, :, 1:].copy()
    for layer, slots_GJ in enumerate(step.result.plan.slots_LGJ):
        copies_E = np.bincount(slots_GJ.reshape(-1), minlength=load_LE.shape[1])
        for gpu, held_J in enumerate(slots_GJ):
            share_J = load_LE[layer][held_J] / copies_E[held_J]
            share_J = np.where(copies_E[held_J] > 1, share_J, np.inf)
            least = int(share_J.argmin())
            if np.isinf(share_J[least]):
                return ()
            copies_E[held_J[least]] -= 1
            slots_LGJ[layer, gpu] = np.delete(held_J, least)
    numbers = step.result.plan.layer_numbers
    return (PlacementPlan(layer_numbers=numbers, slots_LGJ=slots_LGJ),)


def _gains_little(steps: Sequence[Step]) -> bool:
    """Whether all layers together gain less than 1 % from the last slot."""
    if steps[-1].value == 0:
        return True
    return len(steps) > 1 and steps[-1].value > steps[-2].value * (1 - GAIN)


def _rungs(steps: Sequence[Step], layer: int) -> list[_Rung]:
    return [_rung(step, layer) for step in steps]


def _rung(step: Step, layer: int) -> _Rung:
    """Return a layer of a step as judged."""
    plan, origins = step.result.plan, step.result.layer_strategies
    slots_GJ, split = plan.slots_LGJ[layer], dict(layer_split(plan, layer))
    value, excess = judged_layer(step.problem.instance, layer, slots_GJ, split)
    return _Rung(
        slots=step.slots,
        value=value,
        excess=excess,
        origin=origins[layer] if origins else "",
        slots_GJ=slots_GJ,
        split=split,
    )


def _chosen(
    instance: PlacementInstance, room: _Room, rungs: Sequence[Sequence[_Rung]]
) -> list[_Rung]:
    """Return the rung of every layer, together the best that there is room for."""
    worst = instance.objective.layers == "worst_layer"
    found: list[tuple[float, list[_Rung]]] = []
    for most in sorted({rung.slots for rung in rungs[0]}):
        allowed = [[rung for rung in each if rung.slots <= most] for each in rungs]
        layers = [[(rung.slots, rung.worth) for rung in each] for each in allowed]
        slots = room.slots(most)
        if slots < len(layers) * min(rung.slots for rung in allowed[0]):
            continue
        if room.asked is None:
            slots = _worth_it(layers, slots, worst=worst)
        picks = best_choices(layers, slots, worst=worst)
        chosen = [each[pick] for each, pick in zip(allowed, picks, strict=True)]
        values = [rung.worth for rung in chosen]
        found.append((max(values) if worst else sum(values), chosen))
    return min(found, key=lambda each: each[0])[1]


def _worth_it(layers: Sequence[Sequence[Choice]], most: int, *, worst: bool) -> int:
    """Return the fewest slots to which one more in every layer adds under 1 %."""
    values_N = best_values(layers, most, worst=worst)
    least = int(np.flatnonzero(np.isfinite(values_N))[0])
    for slots in range(least, most):
        more = min(most, slots + len(layers))
        if values_N[more] > values_N[slots] * (1 - float(GAIN)):
            return slots
    return most


def _improved(
    growth: Growth,
    limits: Limits,
    problem: Problem,
    chosen: Sequence[_Rung],
    steps: Sequence[Step],
) -> list[_Rung]:
    """Go on with the layers as chosen, those of one number of slots together."""
    best, total = list(chosen), len(chosen)
    unfinished = {step.slots for step in steps if step.result.reason == "limit"}
    left = growth.left
    silent = Growth(growth.strategy, replace(limits, seconds=left), None)
    for slots in sorted({rung.slots for rung in chosen} & unfinished):
        layers = [at for at, rung in enumerate(chosen) if rung.slots == slots]
        seconds = min(silent.left, left * len(layers) / total)
        if seconds <= 0:
            break
        part = some_layers(_wide(problem.instance, slots), layers)
        start = _joined(part, [chosen[layer] for layer in layers])
        try:
            step = silent.step(replace(problem, instance=part), seconds, (start,))
        except (InfeasibleError, LimitError, UsageError):
            continue
        for at, layer in enumerate(layers):
            rung = _rung(step, at)
            if (rung.excess, rung.value) < (best[layer].excess, best[layer].value):
                best[layer] = rung
    return best


def _joined(instance: PlacementInstance, rungs: Sequence[_Rung]) -> PlacementPlan:
    """Return layers of different width as one plan, -1 where there is no slot."""
    widest = max(rung.slots for rung in rungs)
    slots_LGJ = np.full((len(rungs), instance.layout.ep, widest), -1, dtype=np.int16)
    for layer, rung in enumerate(rungs):
        slots_LGJ[layer, :, : rung.slots] = rung.slots_GJ
    split = {
        (layer, expert): weights
        for layer, rung in enumerate(rungs)
        for expert, weights in rung.split.items()
    }
    return PlacementPlan(
        layer_numbers=instance.model.moe_layers, slots_LGJ=slots_LGJ, split=split
    )


def _final(
    problem: Problem, build: Build, room: _Room, chosen: Sequence[_Rung]
) -> Problem:
    """Return the problem of as many slots in the mean, with the memory of the plan."""
    slots, most = sum(rung.slots for rung in chosen), max(r.slots for r in chosen)
    mean = room.mean if room.asked is not None else slots // len(chosen)
    instance = problem.instance
    options = replace(
        problem.options,
        redundant=str(instance.layout.ep * mean - instance.model.experts),
        layout=str(problem.option_values["layout"]),
    )
    final = build(options)
    needs_G = room.needs(most, slots)
    return replace(final, instance=replace(final.instance, memory_bytes_G=needs_G))


def _mean_bound(steps: Sequence[Step]) -> Bound | None:
    """Return the bound that holds for any number of slots: loads shared by all GPUs."""
    for step in steps:
        bound = step.result.bound
        if bound is not None and bound.layers and bound.method == "mean":
            return bound
    return None


def _notes(
    problem: Problem, room: _Room, steps: Sequence[Step], chosen: Sequence[_Rung]
) -> list[str]:
    """Say which layers have how many slots, and what equal numbers gave."""
    numbers = problem.instance.model.moe_layers
    by_slots: dict[int, list[str]] = {}
    for number, rung in zip(numbers, chosen, strict=True):
        by_slots.setdefault(rung.slots, []).append(str(number))
    shares = "; ".join(
        f"{slots} in layers {', '.join(layers)}"
        for slots, layers in sorted(by_slots.items())
    )
    given = "; ".join(step.says for step in steps)
    total, most = sum(rung.slots for rung in chosen), max(r.slots for r in chosen)
    notes = [
        f"slots per GPU: {total} in all {len(chosen)} layers, of {room.slots(most)}: "
        f"{shares} (equal in all layers: {given})"
    ]
    if room.asked is not None and room.in_memory(most) < len(chosen) * room.asked:
        notes.append(
            f"memory holds {room.in_memory(most)} slots per GPU in all layers, not the "
            f"{len(chosen) * room.asked} that --redundant {problem.options.redundant} "
            "asks for"
        )
    return notes
