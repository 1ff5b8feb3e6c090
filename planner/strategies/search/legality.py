"""Whether a move keeps the constraints: the rules of a layer, compiled.

``planner.constraints.rules`` is the authority; here only what a move changes is
looked at, from a state that keeps them.
"""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, IdArray, IntArray
from planner.constraints import PlacementConstraints
from planner.instance import PlacementInstance
from planner.strategies.search.compiling import inner


class Rules(NamedTuple):
    """The rules of a layer (``LayerRules``); ``any`` is False where there are none.

    Pins of expert e are rows ``pin_start_E[e]`` to ``pin_start_E[e + 1]`` of
    ``pin_PR``.
    """

    any: bool
    allowed_RE: BoolArray
    pin_start_E: IntArray
    pin_PR: BoolArray
    apart_KE: BoolArray
    label_KR: IntArray
    new_RE: IdArray
    most_moves: int


def rules_of(instance: PlacementInstance, layer: int) -> Rules:
    """Return the rules of a layer of an instance that may have none."""
    constraints, ranks = instance.constraints, instance.layout.ep
    experts = instance.model.experts
    if constraints is None:
        constraints = PlacementConstraints(shape=(1, ranks, 0))
        layer, experts = 0, 0
    rules = constraints.layers[layer]
    order_P = np.argsort(rules.pin_P, kind="stable")
    return Rules(
        any=instance.constraints is not None,
        allowed_RE=rules.allowed_RE,
        pin_start_E=np.searchsorted(rules.pin_P[order_P], np.arange(experts + 1)),
        pin_PR=rules.pin_PR[order_P],
        apart_KE=rules.apart_KE,
        label_KR=rules.label_KR,
        new_RE=rules.new_RE,
        most_moves=rules.most_moves,
    )


def moves_of(rules: Rules, slots_GJ: IdArray) -> IntArray:
    """Return the moves of slots from the previous plan, as an array of one."""
    if not rules.any:
        return np.zeros(1, dtype=np.int64)
    rank, slot = np.nonzero(slots_GJ >= 0)
    moves = rules.new_RE[rank, slots_GJ[rank, slot]].sum(dtype=np.int64)
    return np.asarray([moves], dtype=np.int64)


@inner  # type: ignore[untyped-decorator]
def moves_added(rules: Any, slots_GJ: Any, move: Any) -> Any:
    """Return by how many the moves from the previous plan rise in a move."""
    new_RE, gpu, far = rules.new_RE, move[0], move[3]
    one, two = np.int64(slots_GJ[gpu, move[1]]), np.int64(move[2])
    added = np.int64(new_RE[gpu, two]) - np.int64(new_RE[gpu, one])
    if far >= 0:
        added += np.int64(new_RE[far, one]) - np.int64(new_RE[far, two])
    return added


@inner  # type: ignore[untyped-decorator]
def may_go(rules: Any, state: Any, expert: Any, leaving: Any, coming: Any) -> Any:
    """Whether an expert may leave a rank, or come to one, or both (-1: neither)."""
    count = state.count_E[expert]
    if coming >= 0:
        if not rules.allowed_RE[coming, expert]:
            return False
        for k in range(rules.label_KR.shape[0]):
            if not rules.apart_KE[k, expert]:
                continue
            for copy in range(count):
                rank = state.rank_EM[expert, copy]
                same = rules.label_KR[k, rank] == rules.label_KR[k, coming]
                if rank != leaving and same:
                    return False
    if leaving < 0:
        return True
    for pin in range(rules.pin_start_E[expert], rules.pin_start_E[expert + 1]):
        kept = coming >= 0 and rules.pin_PR[pin, coming]
        for copy in range(count):
            rank = state.rank_EM[expert, copy]
            kept = kept or (rank != leaving and rules.pin_PR[pin, rank])
        if not kept:
            return False
    return True


@inner  # type: ignore[untyped-decorator]
def is_legal(rules: Any, state: Any, move: Any) -> Any:
    """Whether a move from a legal state leads to a legal state."""
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    added = moves_added(rules, state.slots_GJ, move)
    if added > 0 and state.moves_1[0] + added > rules.most_moves:
        return False
    if not may_go(rules, state, one, move[0], move[3]):
        return False
    return may_go(rules, state, two, move[3], move[0])
