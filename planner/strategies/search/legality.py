"""Whether a move keeps the constraints: the rules of a layer, compiled.

``planner.constraints.rules`` is the authority; here only what a move changes is
looked at, from a state that keeps them.
"""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.compiling import inner


class Rules(NamedTuple):
    """The rules of a layer (``LayerRules``); ``any`` is False where there are none.

    Pins of expert e are rows ``pin_start_E[e]`` to ``pin_start_E[e + 1]`` of
    ``pin_PR``. ``moves_1`` are the moves of the state that the search is in.
    """

    any: bool
    allowed_RE: BoolArray
    pin_start_E: IntArray
    pin_PR: BoolArray
    apart_KE: BoolArray
    label_KR: IntArray
    new_RE: IdArray
    most_moves: int
    moves_1: IntArray


FREE = Rules(
    any=False,
    allowed_RE=np.ones((1, 1), dtype=np.bool_),
    pin_start_E=np.zeros(1, dtype=np.int64),
    pin_PR=np.ones((1, 1), dtype=np.bool_),
    apart_KE=np.ones((1, 1), dtype=np.bool_),
    label_KR=np.zeros((1, 1), dtype=np.int64),
    new_RE=np.zeros((1, 1), dtype=np.int16),
    most_moves=0,
    moves_1=np.zeros(1, dtype=np.int64),
)
"""Where there are none."""


def rules_of(instance: PlacementInstance, layer: int) -> Rules:
    """Return the rules of a layer of an instance that may have none."""
    if instance.constraints is None:
        return FREE
    rules = instance.constraints.layers[layer]
    order_P = np.argsort(rules.pin_P, kind="stable")
    return Rules(
        any=True,
        allowed_RE=rules.allowed_RE,
        pin_start_E=np.searchsorted(
            rules.pin_P[order_P], np.arange(instance.model.experts + 1)
        ),
        pin_PR=rules.pin_PR[order_P],
        apart_KE=rules.apart_KE,
        label_KR=rules.label_KR,
        new_RE=rules.new_RE,
        most_moves=rules.most_moves,
        moves_1=np.zeros(1, dtype=np.int64),
    )


def begin(rules: Rules, slots_GJ: IdArray) -> None:
    """Count the moves of slots from the previous plan, to go on from there."""
    if rules.any:
        rank, slot = np.nonzero(slots_GJ >= 0)
        rules.moves_1[0] = rules.new_RE[rank, slots_GJ[rank, slot]].sum(dtype=np.int64)


@inner  # type: ignore[untyped-decorator]
def moves_added(rules: Any, slots_GJ: Any, move: Any) -> Any:
    """Return by how many the moves from the previous plan rise in a move."""
    new_RE, gpu, far = rules.new_RE, move[0], move[3]
    if move[1] < 0:
        return np.int64(0)
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
    """Whether a move from a legal state leads to a legal state; another server does."""
    if move[1] < 0:
        return True
    one, two = np.int64(state.slots_GJ[move[0], move[1]]), np.int64(move[2])
    added = moves_added(rules, state.slots_GJ, move)
    if added > 0 and rules.moves_1[0] + added > rules.most_moves:
        return False
    if not may_go(rules, state, one, move[0], move[3]):
        return False
    return may_go(rules, state, two, move[3], move[0])
