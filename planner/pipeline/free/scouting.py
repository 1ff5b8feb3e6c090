"""All layers planned with one number of slots after the other, shortly."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.errors import InfeasibleError, LimitError
from planner.instance import PlacementInstance
from planner.pipeline.free.room import Room
from planner.pipeline.free.rungs import Rungs
from planner.pipeline.growing import GAIN, SHARES, Growth, Step, filled
from planner.pipeline.problem import Problem
from planner.plan import PlacementPlan
from planner.strategies.base import Bound
from planner.strategies.baselines.base import expert_loads

NEAR, MORE = 2, 4
"""Slots per GPU that a layer may get fewer or more than the mean, and more at most."""
EQUAL, OTHER, SCOUTING, GROWING = 0.6, 0.05, 0.25, 0.85
"""Shares of the time: for the number asked for, for another, for all others; for all
numbers under ``auto``."""
PROMISE = 0.005
"""A gain below this share of the value is not worth leaving equal slots for."""


class Scouts:
    """Plans of all layers with equal slots, and the rungs that they make."""

    def __init__(self, growth: Growth, problem: Problem, room: Room) -> None:
        self._growth, self._problem, self._room = growth, problem, room
        self._whole = growth.left
        self._by_slots: dict[int, Step] = {}
        self._failed: InfeasibleError | LimitError | None = None
        self.rungs = Rungs(problem.instance)

    @property
    def steps(self) -> list[Step]:
        """Steps by slots."""
        return [self._by_slots[slots] for slots in sorted(self._by_slots)]

    def send(self) -> None:
        """Plan around the number asked for, or upwards from the fewest under ``auto``.

        Raises
        ------
        InfeasibleError, LimitError
            Where no number of slots had a plan.
        """
        if self._room.asked is None:
            self._upwards()
        elif not self._room.is_shared:
            self._with_slots(self._room.mean, self._whole)
        else:
            self._around()
        if not self._by_slots and self._failed is not None:
            raise self._failed

    def why_equal(self) -> str:
        """Say why all layers have as many slots, where they have."""
        mean, least = self._room.mean, f"{100 * PROMISE:.1f} %"
        if not self._room.is_shared:
            return "no layer can have more unless another has fewer than it needs"
        if self._near_bound():
            return f"equal ones are within {least} of a bound for any number of slots"
        if len(self._by_slots) == 1:
            return "the time limit left none to try them"
        if self._too_short(mean):
            return (
                f"a short plan with {mean + 1} slots was no better than with {mean}; "
                "the time limit is too short to tell"
            )
        promise = max(0.0, 100 * self.rungs.promise(self._room))
        return f"they promised {promise:.2f} %"

    def bound(self) -> Bound | None:
        """Return the bound of any number of slots: loads shared by all GPUs."""
        for step in self.steps:
            bound = step.result.bound
            if bound is not None and bound.layers and bound.method == "mean":
                return bound
        return None

    def _upwards(self) -> None:
        most = min(self._room.mean + MORE, self._room.experts)
        share = GROWING * self._whole / min(most - self._room.least + 1, SHARES)
        for slots in range(self._room.least, most + 1):
            if self._by_slots and self._growth.left < (1 - GROWING) * self._whole:
                break
            self._with_slots(slots, share)
            if self._by_slots and _gains_little(self.steps):
                break

    def _around(self) -> None:
        """Plan the mean, then others near it, then more while that promises more."""
        mean = self._room.mean
        # Others start from good equal slots: what they promise is more than chance.
        self._with_slots(mean, EQUAL * self._whole)
        if self._near_bound():
            return
        for far in range(1, NEAR + 1):
            self._other(mean + far)
            if self._too_short(mean):
                return
            self._other(mean - far)
        promised = 0.0
        for slots in range(mean + NEAR + 1, mean + MORE + 1):
            before, promised = promised, self.rungs.promise(self._room)
            if promised <= before + PROMISE and self.limited():
                return
            self._other(slots)

    def _other(self, slots: int) -> None:
        """Plan with so many slots, if they can be, for a small share of the time."""
        possible = self._room.least <= slots <= self._room.experts
        if possible and self._growth.left > self._whole * (1 - EQUAL - SCOUTING):
            self._with_slots(slots, OTHER * self._whole)

    def limited(self) -> bool:
        """Whether more time may bring better plans."""
        return any(step.result.reason == "limit" for step in self.steps)

    def _near_bound(self) -> bool:
        """Whether no number of slots can gain what is worth it."""
        bound, steps = self.bound(), self.steps
        if bound is None or not steps:
            return False
        return float(steps[0].value) * (1 - PROMISE) <= bound.value

    def _too_short(self, mean: int) -> bool:
        """Whether so short a plan is worse than another with a slot less."""
        fewer, more = self._by_slots.get(mean), self._by_slots.get(mean + 1)
        return fewer is not None and more is not None and more.value >= fewer.value

    def _with_slots(self, slots: int, seconds: float) -> None:
        """Plan with so many slots, from the plan with one fewer, or one more."""
        instance = wide(self._problem.instance, slots)
        starts: tuple[PlacementPlan, ...] = ()
        if slots - 1 in self._by_slots:
            starts = filled(instance, self._by_slots[slots - 1])
        elif slots + 1 in self._by_slots:
            starts = _narrowed(instance, self._by_slots[slots + 1])
        problem = replace(self._problem, instance=instance)
        try:
            step = self._growth.step(problem, seconds, starts)
        except (InfeasibleError, LimitError) as error:
            self._failed = error
            return
        self._by_slots[slots] = step
        self.rungs.offer(step)


def wide(instance: PlacementInstance, slots: int) -> PlacementInstance:
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
