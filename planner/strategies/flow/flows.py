"""Token walks added up: how many go from which expert to which, leg by leg.

With one copy of every expert a walk depends on nothing but the token's choices, so
transfers are fixed counts between *nodes*: the ep homes of an EP set, then the
experts of all layers. A placement gives every node an EP rank.
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.layout import ParallelLayout
from planner.workload.parts import TokenPart


class Flows(NamedTuple):
    """Edges: ``count_Y`` transfers of a leg and EP set from one node to another.

    ``chained`` says that tokens stay where their first expert is (``direct``); else
    they go home after every layer (``copies``).

    Leg 2·l is layer l's dispatch, 2·l + 1 its combine. Nodes 0 … ep − 1 are homes by
    EP rank, then come the experts, layer by layer. ``pairs_SN`` are the (token,
    expert) pairs of every node by EP set.
    """

    ep: int
    experts: int
    legs: int
    leg_Y: IntArray
    set_Y: IntArray
    tail_Y: IntArray
    head_Y: IntArray
    count_Y: IntArray
    pairs_SN: IntArray
    chained: bool = True

    @property
    def nodes(self) -> int:
        """Homes and experts."""
        return self.ep + self.legs // 2 * self.experts

    def first(self, layer: int) -> int:
        """Return the node of a layer's expert 0."""
        return self.ep + layer * self.experts


def flows_of(
    part: TokenPart, layout: ParallelLayout, experts: int, *, chained: bool = True
) -> Flows:
    """Add up the walks of a part, ``direct`` or, not chained, ``copies`` (rule 20)."""
    layers, ep = part.experts_LTK.shape[0], layout.ep
    set_T = layout.set_G[part.source_T].astype(np.int64)
    home_T = part.source_T - set_T * ep
    nodes = ep + layers * experts
    pairs_SN = np.zeros((layout.sets, nodes), dtype=np.int64)
    stand_T, edges = home_T, []
    for layer in range(layers):
        ids_TK = part.experts_LTK[layer].astype(np.int64)
        node_TK = np.where(ids_TK < 0, -1, ids_TK + ep + layer * experts)
        next_T = stand_T
        if chained:
            next_T = np.where(node_TK[:, 0] >= 0, node_TK[:, 0], stand_T)
        out, back = [], []
        for node_T in node_TK.T:
            used = node_T >= 0
            np.add.at(pairs_SN, (set_T[used], node_T[used]), 1)
            out.append(np.stack([set_T, stand_T, node_T])[:, used])
            back.append(np.stack([set_T, node_T, next_T])[:, used])
        if chained and layer == layers - 1:
            back.append(np.stack([set_T, next_T, home_T]))
        edges.append(_merged(2 * layer, np.concatenate(out, axis=1), nodes))
        edges.append(_merged(2 * layer + 1, np.concatenate(back, axis=1), nodes))
        stand_T = next_T
    leg_Y, set_Y, tail_Y, head_Y, count_Y = np.concatenate(edges, axis=1)
    return Flows(
        ep=ep,
        experts=experts,
        legs=2 * layers,
        leg_Y=leg_Y,
        set_Y=set_Y,
        tail_Y=tail_Y,
        head_Y=head_Y,
        count_Y=count_Y,
        pairs_SN=pairs_SN,
        chained=chained,
    )


def _merged(leg: int, moves_3X: IntArray, nodes: int) -> IntArray:
    """Count equal (set, tail, head); what stays at its node is no transfer."""
    set_X, tail_X, head_X = moves_3X[:, moves_3X[1] != moves_3X[2]]
    keys, count = np.unique(
        (set_X * nodes + tail_X) * nodes + head_X, return_counts=True
    )
    pair = keys // nodes
    return np.stack(
        [np.full_like(keys, leg), pair // nodes, pair % nodes, keys % nodes, count]
    )


def ranks_of(flows: Flows, slots_LGJ: IdArray) -> IntArray:
    """Return the EP rank of every node under a plan with one copy of each expert."""
    rank_N = np.arange(flows.nodes, dtype=np.int64)
    for layer, slots_GJ in enumerate(slots_LGJ):
        held_G, held_J = np.nonzero(slots_GJ >= 0)
        node = flows.first(layer) + slots_GJ[held_G, held_J].astype(np.int64)
        rank_N[node] = held_G
    return rank_N


def slots_of(flows: Flows, rank_N: IntArray, width: int) -> IdArray:
    """Return the slots [L, ep, J] of ranked nodes, ascending on every GPU."""
    layers = flows.legs // 2
    slots_LGJ = np.full((layers, flows.ep, width), -1, dtype=np.int16)
    for layer in range(layers):
        first = flows.first(layer)
        rank_E = rank_N[first : first + flows.experts]
        expert = np.argsort(rank_E, kind="stable")
        rank = rank_E[expert]
        start_G = np.searchsorted(rank, np.arange(flows.ep))
        slots_LGJ[layer, rank, np.arange(rank.size) - start_G[rank]] = expert
    return slots_LGJ
