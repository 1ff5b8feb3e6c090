"""What the slots of a layer must keep, and the one check whether they do.

Axes: L layers, R EP ranks, E experts, J slots of a GPU, P pins, K sets of GPUs apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from planner.arrays import BoolArray, IdArray, IntArray

UNLIMITED = 2**40
"""Moves that no plan reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One entry of a constraints file on this cluster.

    Attributes
    ----------
    kind
        ``pins``, ``forbidden`` or ``apart``.
    layers
        Indices of the layers that it binds.
    ranks
        EP ranks of the GPUs named (``pins``, ``forbidden``).
    labels
        Failure domain of every EP rank, one row per EP set (``apart``).
    says
        The entry in words.
    """

    kind: str
    experts: tuple[int, ...]
    layers: frozenset[int]
    says: str
    ranks: tuple[int, ...] = ()
    labels: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerRules:
    """The rules of one layer as arrays.

    Attributes
    ----------
    allowed_RE
        Whether a rank may hold an expert.
    pin_P, pin_PR
        An expert, and the ranks of which one at least must hold it.
    apart_KE, label_KR
        Experts of which ranks with the same label hold one copy at most.
    new_RE
        GPUs of a rank that did not hold an expert in the previous plan: what a copy
        there counts as moves.
    most_moves
        The most moves of this layer.
    """

    allowed_RE: BoolArray
    pin_P: IntArray
    pin_PR: BoolArray
    apart_KE: BoolArray
    label_KR: IntArray
    new_RE: IdArray
    most_moves: int

    def moves(self, slots_GJ: IdArray) -> int:
        """Return how many GPUs hold an expert that they did not hold before."""
        return int(self.new_RE[self._held(slots_GJ)].sum())

    def keeps(self, slots_GJ: IdArray) -> bool:
        """Tell whether slots keep every rule of this layer."""
        broken = self.breaking(slots_GJ).any()
        return not broken and self.moves(slots_GJ) <= self.most_moves

    def breaking(self, slots_GJ: IdArray) -> BoolArray:
        """Return the experts that break a rule where they are; moves aside."""
        held_RE = self._held(slots_GJ)
        breaking_E = np.asarray((held_RE & ~self.allowed_RE).any(axis=0))
        pinned_P = (held_RE[:, self.pin_P].T & self.pin_PR).any(axis=1)
        breaking_E[self.pin_P[~pinned_P]] = True
        for apart_E, label_R in zip(self.apart_KE, self.label_KR, strict=True):
            for label in np.unique(label_R):
                together_E = held_RE[label_R == label].sum(axis=0)
                breaking_E |= apart_E & (together_E > 1)
        return breaking_E

    def _held(self, slots_GJ: IdArray) -> BoolArray:
        held_RE = np.zeros_like(self.allowed_RE)
        rank, slot = np.nonzero(slots_GJ >= 0)
        held_RE[rank, slots_GJ[rank, slot]] = True
        return held_RE


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacementConstraints:
    """All rules of a plan.

    Attributes
    ----------
    shape
        Layers, EP ranks and experts.
    new_LRE
        See :class:`LayerRules`; None without a previous plan.
    before_LGJ
        Slots of the previous plan by EP rank of the first set, -1 where it had none.
    max_moves
        The most moves of all layers together; None: any number.
    most_L
        How they are shared out among the layers; None before that is decided.
    """

    shape: tuple[int, int, int]
    rules: tuple[Rule, ...] = ()
    new_LRE: IdArray | None = None
    before_LGJ: IdArray | None = None
    max_moves: int | None = None
    most_L: tuple[int, ...] | None = None

    @cached_property
    def layers(self) -> tuple[LayerRules, ...]:
        """The rules of every layer."""
        return tuple(
            self.layer(layer, [rule for rule in self.rules if layer in rule.layers])
            for layer in range(self.shape[0])
        )

    def layer(self, layer: int, rules: Sequence[Rule]) -> LayerRules:
        """Return some rules as those of a layer."""
        _, ranks, experts = self.shape
        allowed_RE = np.ones((ranks, experts), dtype=np.bool_)
        pins = [
            (expert, rule.ranks)
            for rule in rules
            if rule.kind == "pins"
            for expert in rule.experts
        ]
        pin_PR = np.zeros((len(pins), ranks), dtype=np.bool_)
        for row_R, (_, members) in zip(pin_PR, pins, strict=True):
            row_R[list(members)] = True
        for rule in rules:
            if rule.kind == "forbidden":
                allowed_RE[np.ix_(rule.ranks, rule.experts)] = False
        apart = [
            (rule.experts, labels)
            for rule in rules
            if rule.kind == "apart"
            for labels in rule.labels
        ]
        apart_KE = np.zeros((len(apart), experts), dtype=np.bool_)
        for row_E, (chosen, _) in zip(apart_KE, apart, strict=True):
            row_E[list(chosen)] = True
        label_KR = [labels for _, labels in apart]
        new_RE = np.zeros((ranks, experts), dtype=np.int16)
        return LayerRules(
            allowed_RE=allowed_RE,
            pin_P=np.asarray([expert for expert, _ in pins], dtype=np.int64),
            pin_PR=pin_PR,
            apart_KE=apart_KE,
            label_KR=np.asarray(label_KR, dtype=np.int64).reshape(len(apart), ranks),
            new_RE=new_RE if self.new_LRE is None else self.new_LRE[layer],
            most_moves=UNLIMITED if self.most_L is None else self.most_L[layer],
        )

    def shared_out(self, most_L: Sequence[int]) -> "PlacementConstraints":
        """Return the constraints with the most moves of every layer."""
        return replace(self, most_L=tuple(most_L))
