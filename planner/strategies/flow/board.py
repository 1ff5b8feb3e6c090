"""From an instance to the arrays of the compiled loop."""

from fractions import Fraction

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.flow.flows import Flows, ranks_of
from planner.strategies.flow.kernel import Board, State
from planner.strategies.flow.wires import Wires


def board_of(
    instance: PlacementInstance, flows: Flows, wires: Wires, *, across: bool = False
) -> Board:
    """Return the fixed arrays; ``across`` lets experts of two layers swap places."""
    ends = np.concatenate([flows.tail_Y, flows.head_Y])
    edge = np.tile(np.arange(flows.leg_Y.size), 2)
    order = np.argsort(ends, kind="stable")
    layer_N = np.maximum(0, (np.arange(flows.nodes) - flows.ep) // flows.experts)
    caps_LG, caps_LD = _caps(instance, flows)
    return Board(
        ep=flows.ep,
        worst=instance.objective.layers == "worst_layer",
        capped=instance.caps.gpu is not None or instance.caps.domain is not None,
        leg_Y=np.ascontiguousarray(flows.leg_Y),
        set_Y=np.ascontiguousarray(flows.set_Y),
        tail_Y=np.ascontiguousarray(flows.tail_Y),
        head_Y=np.ascontiguousarray(flows.head_Y),
        count_Y=np.ascontiguousarray(flows.count_Y),
        first_N=np.searchsorted(ends[order], np.arange(flows.nodes + 1)),
        edge_Z=edge[order],
        first_P=wires.first_P,
        place_W=wires.place_Y,
        share_W=wires.share_Y,
        cost_QX=np.tile(wires.cost_2X, (flows.legs // 2, 1)),
        group_N=np.zeros_like(layer_N) if across else layer_N,
        layer_N=layer_N,
        pairs_SN=flows.pairs_SN,
        domain_G=np.ascontiguousarray(instance.layout.domain_G, dtype=np.int64),
        caps_LG=caps_LG,
        caps_LD=caps_LD,
    )


def state_of(board: Board, flows: Flows, slots_LGJ: IdArray) -> State:
    """Return the state of a plan with one copy of each expert, loads not counted."""
    rank_N = ranks_of(flows, slots_LGJ)
    layers, legs = flows.legs // 2, flows.legs
    gpus, domains = board.domain_G.size, int(board.domain_G.max()) + 1
    width = slots_LGJ.shape[2]
    groups = int(board.group_N.max()) + 1
    node_HGJ = np.full((groups, flows.ep, width), -1, dtype=np.int64)
    held_HG = np.zeros((groups, flows.ep), dtype=np.int64)
    for node in range(flows.ep, flows.nodes):
        group, rank = board.group_N[node], rank_N[node]
        node_HGJ[group, rank, held_HG[group, rank]] = node
        held_HG[group, rank] += 1
    return State(
        rank_N=rank_N,
        node_HGJ=node_HGJ,
        load_QX=np.zeros_like(board.cost_QX),
        saved_QX=np.zeros_like(board.cost_QX),
        value_Q=np.zeros(legs),
        kept_Q=np.zeros(legs),
        peak_Q=np.zeros(legs),
        kept_peak_Q=np.zeros(legs),
        touched_Q=np.zeros(legs, dtype=np.int64),
        pairs_LG=np.zeros((layers, gpus)),
        pairs_LD=np.zeros((layers, domains)),
    )


def _caps(instance: PlacementInstance, flows: Flows) -> tuple[FloatArray, FloatArray]:
    """Return the most pairs of every GPU and domain by layer (rule 26)."""
    layers, gpus = flows.legs // 2, instance.layout.gpu_count
    domains = instance.topology.domains
    pairs_N = flows.pairs_SN.sum(axis=0)
    caps_LG = np.full((layers, gpus), np.inf)
    caps_LD = np.full((layers, len(domains)), np.inf)
    for layer in range(layers):
        first = flows.first(layer)
        total = Fraction(int(pairs_N[first : first + flows.experts].sum()), gpus)
        of_gpu, of_domain = instance.caps.gpu_at(layer), instance.caps.domain_at(layer)
        if of_gpu is not None:
            caps_LG[layer] = float(total * of_gpu)
        if of_domain is not None:
            caps_LD[layer] = _sizes(domains) * float(total * of_domain)
    return caps_LG, caps_LD


def _sizes(domains: tuple[tuple[int, ...], ...]) -> IntArray:
    return np.asarray([len(members) for members in domains])
