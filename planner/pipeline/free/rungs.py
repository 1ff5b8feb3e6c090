"""What each layer was seen with, by number of slots, and the best of it together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from planner.arrays import IdArray
from planner.evaluator import evaluate_planning
from planner.evaluator.evaluation import layer_split
from planner.instance import PlacementInstance
from planner.pipeline.free.room import Room
from planner.pipeline.growing import GAIN, Step
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.judging import judged_layer
from planner.strategies.knapsack import Choice, best_choices, best_values

CAP_PENALTY = 1e3
"""What a cap exceeded by 1 counts, in shares of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
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


class Rungs:
    """The best that every layer was seen with, for every number of slots."""

    def __init__(self, instance: PlacementInstance) -> None:
        self._instance = instance
        self._worst = instance.objective.layers == "worst_layer"
        self._held: list[dict[int, Rung]] = [{} for _ in range(instance.layer_count)]

    def offer(self, step: Step, layers: Iterable[int] | None = None) -> None:
        """Keep what is better; ``layers`` are those of the step, else all."""
        for at, layer in enumerate(
            range(len(self._held)) if layers is None else layers
        ):
            rung = _rung(step, at)
            before = self._held[layer].get(rung.slots)
            if before is None or _rank([rung]) < _rank([before]):
                self._held[layer][rung.slots] = rung

    def equal(self, most: int) -> list[Rung] | None:
        """Return the best plan of as many slots in every layer, at most ``most``."""
        return min(self._equals(most), key=self.worth, default=None)

    def promise(self, room: Room) -> float:
        """Return by which share the best choice is better than equal slots."""
        equal = self.equal(room.mean)
        if equal is None:
            return 1.0
        before, after = self.worth(equal), self.worth(self._picked(room, None))
        return (before - after) / before if before else 0.0

    def best(self, room: Room, total: int | None = None) -> list[Rung]:
        """Return the rung of every layer, together the best that there is room for.

        Never worse than equal slots, by the exact objective.

        Parameters
        ----------
        total
            Slots of a GPU in all layers, where less than the room is wanted.
        """
        chosen = self._picked(room, total)
        taken = sum(rung.slots for rung in chosen)
        alike = room.mean if room.asked is not None else taken // len(chosen)
        return min([*self._equals(alike), chosen], key=self._judged)

    def worth(self, chosen: Sequence[Rung]) -> float:
        """Return what the layers are worth together."""
        values = [rung.worth for rung in chosen]
        return max(values) if self._worst else sum(values)

    def _equals(self, most: int) -> list[list[Rung]]:
        """Return the plans of as many slots in every layer."""
        return [
            [each[slots] for each in self._held]
            for slots in sorted(self._held[0])
            if slots <= most
        ]

    def _picked(self, room: Room, total: int | None) -> list[Rung]:
        """Return the best by the worth of the layers: a knapsack over them."""
        found: list[list[Rung]] = []
        for most in sorted(self._held[0]):
            allowed = [
                [rung for slots, rung in sorted(each.items()) if slots <= most]
                for each in self._held
            ]
            layers = [[(rung.slots, rung.worth) for rung in each] for each in allowed]
            slots = room.slots(most) if total is None else min(total, room.slots(most))
            if slots < len(layers) * min(self._held[0]):
                continue
            if room.asked is None and total is None:
                slots = _worth_it(layers, slots, worst=self._worst)
            picks = best_choices(layers, slots, worst=self._worst)
            found.append(
                [each[pick] for each, pick in zip(allowed, picks, strict=True)]
            )
        return min(found, key=self.worth)

    def _judged(self, chosen: Sequence[Rung]) -> tuple[Fraction, Fraction]:
        """Return caps exceeded and the objective, exact."""
        excess, _ = _rank(chosen)
        return excess, evaluate_planning(
            self._instance, joined(self._instance, chosen)
        ).value


def joined(instance: PlacementInstance, rungs: Sequence[Rung]) -> PlacementPlan:
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


def _rung(step: Step, layer: int) -> Rung:
    """Return a layer of a step as judged."""
    plan, origins = step.result.plan, step.result.layer_strategies
    slots_GJ, split = plan.slots_LGJ[layer], dict(layer_split(plan, layer))
    value, excess = judged_layer(step.problem.instance, layer, slots_GJ, split)
    return Rung(
        slots=step.slots,
        value=value,
        excess=excess,
        origin=origins[layer] if origins else "",
        slots_GJ=slots_GJ,
        split=split,
    )


def _rank(rungs: Sequence[Rung]) -> tuple[Fraction, Fraction]:
    """Return caps exceeded, then the values, summed."""
    excess = sum((rung.excess for rung in rungs), Fraction(0))
    return excess, sum((rung.value for rung in rungs), Fraction(0))


def _worth_it(layers: Sequence[Sequence[Choice]], most: int, *, worst: bool) -> int:
    """Return the fewest slots to which one more in every layer adds under 1 %."""
    values_N = best_values(layers, most, worst=worst)
    least = int(np.flatnonzero(np.isfinite(values_N))[0])
    for slots in range(least, most):
        more = min(most, slots + len(layers))
        if values_N[more] > values_N[slots] * (1 - float(GAIN)):
            return slots
    return most
