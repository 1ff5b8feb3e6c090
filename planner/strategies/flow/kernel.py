"""The compiled loop: swap two experts of a layer, carry their edges, judge, take."""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IntArray
from planner.strategies.search.anneal import draw
from planner.strategies.search.compiling import inner

DOUBLINGS = 4
"""Loads of a leg are compared in the norm of 2^4, which sees more than the peak."""


class Board(NamedTuple):
    """What never changes: edges by node, routes of pairs, costs, caps if ``capped``.

    ``first_N`` and ``edge_Z`` list the edges of every node; ``cost_QX`` is the cost of
    a load by leg and place; ``group_N`` is the group of interchangeable places of a
    node. ``caps_LG`` and ``caps_LD`` bound pairs per GPU and domain.
    """

    ep: int
    worst: bool
    capped: bool
    leg_Y: IntArray
    set_Y: IntArray
    tail_Y: IntArray
    head_Y: IntArray
    count_Y: IntArray
    first_N: IntArray
    edge_Z: IntArray
    first_P: IntArray
    place_W: IntArray
    share_W: FloatArray
    cost_QX: FloatArray
    group_N: IntArray
    layer_N: IntArray
    pairs_SN: IntArray
    domain_G: IntArray
    caps_LG: FloatArray
    caps_LD: FloatArray


class State(NamedTuple):
    """What moves: ranks and loads, with scratch for the rows a move touches."""

    rank_N: IntArray
    node_HGJ: IntArray
    load_QX: FloatArray
    saved_QX: FloatArray
    value_Q: FloatArray
    kept_Q: FloatArray
    peak_Q: FloatArray
    kept_peak_Q: FloatArray
    touched_Q: IntArray
    pairs_LG: FloatArray
    pairs_LD: FloatArray


@inner  # type: ignore[untyped-decorator]
def add_edge(board: Any, state: Any, edge: int, sign: float) -> None:
    """Add an edge's transfers to the links between its nodes' GPUs."""
    base = board.set_Y[edge] * board.ep
    source = base + state.rank_N[board.tail_Y[edge]]
    target = base + state.rank_N[board.head_Y[edge]]
    if source == target:
        return
    pair = source * board.domain_G.size + target
    amount, leg = sign * board.count_Y[edge], board.leg_Y[edge]
    for at in range(board.first_P[pair], board.first_P[pair + 1]):
        state.load_QX[leg, board.place_W[at]] += amount * board.share_W[at]


@inner  # type: ignore[untyped-decorator]
def add_node(board: Any, state: Any, node: int, sign: float, without: int) -> None:
    """Add all edges of a node but those to another."""
    for at in range(board.first_N[node], board.first_N[node + 1]):
        edge = board.edge_Z[at]
        if without < 0 or (
            board.tail_Y[edge] != without and board.head_Y[edge] != without
        ):
            add_edge(board, state, edge, sign)


@inner  # type: ignore[untyped-decorator]
def leg_value(board: Any, state: Any, leg: int) -> float:
    """Return a high norm of a leg's loads in place of their maximum, noted as well."""
    most = 0.0
    for x in range(board.cost_QX.shape[1]):
        most = max(most, state.load_QX[leg, x] * board.cost_QX[leg, x])
    state.peak_Q[leg] = most
    if most == 0.0:
        return 0.0
    total = 0.0
    for x in range(board.cost_QX.shape[1]):
        part = state.load_QX[leg, x] * board.cost_QX[leg, x] / most
        for _ in range(DOUBLINGS):
            part *= part
        total += part
    for _ in range(DOUBLINGS):
        total = np.sqrt(total)
    return most * total


@inner  # type: ignore[untyped-decorator]
def combined(board: Any, value_Q: Any) -> float:
    """Add the legs up, or take a high norm over layers for ``worst_layer``."""
    if not board.worst:
        return float(value_Q.sum())
    most = 0.0
    for leg in range(0, value_Q.size, 2):
        most = max(most, value_Q[leg] + value_Q[leg + 1])
    if most == 0.0:
        return 0.0
    total = 0.0
    for leg in range(0, value_Q.size, 2):
        part = (value_Q[leg] + value_Q[leg + 1]) / most
        for _ in range(DOUBLINGS):
            part *= part
        total += part
    for _ in range(DOUBLINGS):
        total = np.sqrt(total)
    return float(most * total)


@inner  # type: ignore[untyped-decorator]
def peak(board: Any, state: Any) -> float:
    """Return the objective itself, up to rounding."""
    total, most = 0.0, 0.0
    for leg in range(0, state.peak_Q.size, 2):
        layer = state.peak_Q[leg] + state.peak_Q[leg + 1]
        total, most = total + layer, max(most, layer)
    return most if board.worst else total


@inner  # type: ignore[untyped-decorator]
def add_pairs(board: Any, state: Any, node: int, rank: int, sign: float) -> None:
    """Count a node's pairs at a rank of every EP set."""
    for number in range(board.pairs_SN.shape[0]):
        gpu, amount = number * board.ep + rank, sign * board.pairs_SN[number, node]
        state.pairs_LG[board.layer_N[node], gpu] += amount
        state.pairs_LD[board.layer_N[node], board.domain_G[gpu]] += amount


@inner  # type: ignore[untyped-decorator]
def over_caps(board: Any, state: Any, layer: int) -> float:
    """Return by how many pairs a layer exceeds its caps."""
    excess = 0.0
    if not board.capped:
        return excess
    for gpu in range(state.pairs_LG.shape[1]):
        excess += max(0.0, state.pairs_LG[layer, gpu] - board.caps_LG[layer, gpu])
    for domain in range(state.pairs_LD.shape[1]):
        most = board.caps_LD[layer, domain]
        excess += max(0.0, state.pairs_LD[layer, domain] - most)
    return excess


@inner  # type: ignore[untyped-decorator]
def place(board: Any, state: Any, node: int, rank: int, slot: int) -> None:
    """Write a node into a slot."""
    add_pairs(board, state, node, state.rank_N[node], -1.0)
    state.rank_N[node] = rank
    state.node_HGJ[board.group_N[node], rank, slot] = node
    add_pairs(board, state, node, rank, 1.0)


@inner  # type: ignore[untyped-decorator]
def exchange(board: Any, state: Any, group: int, here: Any, there: Any) -> None:
    """Swap what two slots hold; the second may be empty."""
    one = state.node_HGJ[group, here[0], here[1]]
    two = state.node_HGJ[group, there[0], there[1]]
    place(board, state, one, there[0], there[1])
    if two >= 0:
        place(board, state, two, here[0], here[1])
    else:
        state.node_HGJ[group, here[0], here[1]] = -1


@inner  # type: ignore[untyped-decorator]
def mark(board: Any, state: Any, node: int, touched: int) -> int:
    """List the legs that a node's edges touch, saving their loads."""
    for at in range(board.first_N[node], board.first_N[node + 1]):
        leg = board.leg_Y[board.edge_Z[at]]
        known = False
        for number in range(touched):
            known = known or state.touched_Q[number] == leg
        if not known:
            state.touched_Q[touched] = leg
            state.saved_QX[leg] = state.load_QX[leg]
            state.kept_Q[leg] = state.value_Q[leg]
            state.kept_peak_Q[leg] = state.peak_Q[leg]
            touched += 1
    return touched


@inner  # type: ignore[untyped-decorator]
def carry(board: Any, state: Any, one: int, two: int, sign: float) -> None:
    """Add the edges of both nodes, those between them once."""
    add_node(board, state, one, sign, -1)
    if two >= 0:
        add_node(board, state, two, sign, one)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def rebuild(board: Any, state: Any) -> float:
    """Count all loads anew; return the objective."""
    state.load_QX[:] = 0.0
    state.pairs_LG[:] = 0.0
    state.pairs_LD[:] = 0.0
    for edge in range(board.leg_Y.size):
        add_edge(board, state, edge, 1.0)
    for node in range(board.ep, state.rank_N.size):
        add_pairs(board, state, node, state.rank_N[node], 1.0)
    for leg in range(state.value_Q.size):
        state.value_Q[leg] = leg_value(board, state, leg)
    return float(peak(board, state))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def anneal(
    board: Any, state: Any, best_N: Any, best: float, heat: Any, random_1: Any
) -> float:
    """Try ``heat[1]`` swaps at temperature ``heat[0]``; return the best objective.

    The ranks of the best state that exceeds no cap more than the start are left in
    ``best_N``.
    """
    groups, ranks, width = state.node_HGJ.shape
    now = combined(board, state.value_Q)
    for _ in range(int(heat[1])):
        group = draw(random_1, groups)
        here = (draw(random_1, ranks), draw(random_1, width))
        one = state.node_HGJ[group, here[0], here[1]]
        there = (
            (here[0] + 1 + draw(random_1, ranks - 1)) % ranks,
            draw(random_1, width),
        )
        two = state.node_HGJ[group, there[0], there[1]]
        if one < 0:
            continue
        layer = board.layer_N[one]
        before = over_caps(board, state, layer)
        if two >= 0 and board.layer_N[two] != layer:
            before += over_caps(board, state, board.layer_N[two])
        touched = mark(board, state, one, 0)
        if two >= 0:
            touched = mark(board, state, two, touched)
        carry(board, state, one, two, -1.0)
        exchange(board, state, group, here, there)
        carry(board, state, one, two, 1.0)
        after = over_caps(board, state, layer)
        if two >= 0 and board.layer_N[two] != layer:
            after += over_caps(board, state, board.layer_N[two])
        for number in range(touched):
            leg = state.touched_Q[number]
            state.value_Q[leg] = leg_value(board, state, leg)
        new = combined(board, state.value_Q)
        chance = (draw(random_1, 1 << 30) + 1.0) / (1 << 30)
        if after <= before and new <= now - heat[0] * np.log(chance):
            now = new
            value = peak(board, state)
            if value < best * (1 - 1e-12):
                best = value
                best_N[:] = state.rank_N
            continue
        if two >= 0:
            exchange(board, state, group, here, there)
        else:
            exchange(board, state, group, there, here)
        for number in range(touched):
            leg = state.touched_Q[number]
            state.load_QX[leg] = state.saved_QX[leg]
            state.value_Q[leg] = state.kept_Q[leg]
            state.peak_Q[leg] = state.kept_peak_Q[leg]
    return best
