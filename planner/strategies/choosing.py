"""Choose among the layers of several plans: the best layers together.

With one workload every layer is best on its own. With several the objective is not a
sum over layers of anything: under ``worst`` a layer may give way in one workload where
the others make up for it. Then layers are exchanged one at a time for any that was
seen, as long as the objective of all workloads together falls; from the layers held
and from those of the plan that is new, so that no plan offered is better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np

from planner.arrays import IdArray
from planner.evaluator.evaluation import layer_split
from planner.evaluator.joint import combined, planning_tokens
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan, SplitWeights
from planner.strategies.judging import judged_views

Rank = tuple[Fraction, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerChoice:
    """A layer of a plan and who made it.

    Attributes
    ----------
    values
        By workload, each in its own unit.
    excess
        By how much caps are exceeded, of all workloads together.
    """

    values: tuple[Fraction, ...]
    excess: Fraction
    origin: str
    slots_GJ: IdArray
    split: Mapping[int, SplitWeights]


class Portfolio:
    """The best layers of all plans offered so far."""

    def __init__(self, instance: PlacementInstance) -> None:
        self._instance, self._tokens = instance, planning_tokens(instance)
        self._seen: list[list[LayerChoice]] = [[] for _ in range(instance.layer_count)]
        self.choices: list[LayerChoice] = []
        """The best layers, once a plan has been offered."""

    def offer(self, plan: PlacementPlan, origins: Sequence[str]) -> None:
        """Keep the layers of ``plan`` that make the whole better."""
        offered = [
            self._judged(plan, layer, origin) for layer, origin in enumerate(origins)
        ]
        for seen, choice in zip(self._seen, offered, strict=True):
            seen.append(choice)
        if not self.choices:
            self.choices = offered
        elif len(self._instance.views) == 1:
            self.choices = [
                min(pair, key=lambda each: (each.excess, each.values))
                for pair in zip(self.choices, offered, strict=True)
            ]
        else:
            ways = [self._exchanged(self.choices), self._exchanged(offered)]
            self.choices = min(ways, key=self._rank)

    def _judged(self, plan: PlacementPlan, layer: int, origin: str) -> LayerChoice:
        slots_GJ, split = plan.slots_LGJ[layer], layer_split(plan, layer)
        judged = judged_views(self._instance, layer, slots_GJ, split)
        return LayerChoice(
            values=tuple(value for value, _ in judged),
            excess=sum((excess for _, excess in judged), Fraction(0)),
            origin=origin,
            slots_GJ=slots_GJ,
            split=split,
        )

    def _exchanged(self, choices: Sequence[LayerChoice]) -> list[LayerChoice]:
        """Exchange one layer at a time for the best that was seen, while it helps."""
        held = list(choices)
        while True:
            before = self._rank(held)
            for layer, seen in enumerate(self._seen):
                others = self._together([*held[:layer], *held[layer + 1 :]])
                rank = partial(self._rank_with, others)
                held[layer] = min([held[layer], *seen], key=rank)
            if self._rank(held) == before:
                return held

    def _rank(self, choices: Sequence[LayerChoice]) -> Rank:
        """Order of preference: caps first, then the objective."""
        excess = sum((each.excess for each in choices), Fraction(0))
        return excess, *self._order(self._together(choices))

    def _rank_with(self, others: Sequence[Fraction], choice: LayerChoice) -> Rank:
        """Return the order of what one layer makes with the others."""
        both = self._joined([others, choice.values])
        return choice.excess, *self._order(both), *self._order(choice.values)

    def _order(self, values: Sequence[Fraction]) -> Rank:
        """The objective, then all workloads: under ``worst`` lower ones help later."""
        rates = [
            value / count if count else Fraction(0)
            for value, count in zip(values, self._tokens, strict=True)
        ]
        value = combined(self._instance, values, self._tokens)
        return value, *sorted(rates, reverse=True)

    def _together(self, choices: Sequence[LayerChoice]) -> tuple[Fraction, ...]:
        """Return the value of every workload over these layers."""
        if not choices:
            return (Fraction(0),) * len(self._tokens)
        return self._joined([each.values for each in choices])

    def _joined(self, values: Sequence[Sequence[Fraction]]) -> tuple[Fraction, ...]:
        by_workload = zip(*values, strict=True)
        if self._instance.objective.layers == "worst_layer":
            return tuple(max(each) for each in by_workload)
        return tuple(sum(each, Fraction(0)) for each in by_workload)

    @property
    def value(self) -> Fraction:
        """Objective of the best layers together."""
        values = self._together(self.choices)
        return combined(self._instance, values, self._tokens)

    def plan(self) -> PlacementPlan:
        """Return the best layers as one plan."""
        return PlacementPlan(
            layer_numbers=self._instance.model.moe_layers,
            slots_LGJ=np.stack([choice.slots_GJ for choice in self.choices]),
            split={
                (layer, expert): weights
                for layer, choice in enumerate(self.choices)
                for expert, weights in choice.split.items()
            },
        )
