"""The tokens of one layer as bits, and the state that a search changes."""

from fractions import Fraction
from math import floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.arrays import FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.bits import ONES
from planner.strategies.search.network import Network
from planner.workload.parts import TokenPart

Words = NDArray[np.uint64]
KNUTH = np.uint64(2654435769)
LOW_32 = np.uint64(0xFFFFFFFF)
WORD = 64
MOST_COPIES = 16
"""Copies per expert that moves may reach, unless a start has more."""


class Tokens(NamedTuple):
    """The tokens of a layer in lanes (``planner.strategies.search.bits``).

    ``chose_EW`` are the tokens that chose each expert; ``mask_QW`` row
    m(m−1)/2 + j holds the tokens that use copy j of m where a hash decides
    (rules 18, 19). ``load_CE`` are pairs by EP set and expert; ``caps_G`` and
    ``caps_N`` the most pairs a GPU and a domain may serve.
    """

    source_L: IntArray
    chose_EW: Words
    mask_QW: Words
    load_CE: IntArray
    most_copies: int
    planes: int
    caps_G: FloatArray
    caps_N: FloatArray


class State(NamedTuple):
    """What a move changes, and scratch space.

    ``rank_EM`` and ``count_E`` are the copies of each expert in copy order. Columns
    have bit-sliced counters ``count_CBW`` and their summaries. ``change_CL`` gathers
    tokens gained less lost by column and lane while a move is judged.
    """

    slots_GJ: IdArray
    rank_EM: IntArray
    count_E: IntArray
    count_CBW: Words
    any_CW: Words
    many_CW: Words
    load_X: FloatArray
    trial_X: FloatArray
    pairs_G: FloatArray
    change_CL: IntArray
    words_5W: Words
    near_2L: IntArray
    swap_2L: IntArray
    pairs_N: FloatArray
    power_X: FloatArray


def tokens_of(instance: PlacementInstance, layer: int, copies: int) -> Tokens:
    """Return the tokens of a layer of the planning part.

    ``copies`` is the most copies of one expert in any start.

    Raises
    ------
    TypeError
        For a counts table, which has no tokens.
    """
    part, layout = instance.planning, instance.layout
    if not isinstance(part, TokenPart):
        raise TypeError("a counts table has no tokens")
    ids_TK = part.experts_LTK[layer]
    known_T = np.flatnonzero((ids_TK >= 0).any(axis=1))
    ids_TK, source_T = ids_TK[known_T], part.source_T[known_T]
    lane_T, depth_T, source_L = _lanes(source_T, layout.gpu_count)
    bit_T = np.uint64(1) << (depth_T % WORD).astype(np.uint64)
    lanes, depth = source_L.size, int(depth_T.max(initial=0)) // WORD + 1
    word_T = depth_T // WORD * lanes + lane_T
    width = depth * lanes
    token, choice = np.nonzero(ids_TK >= 0)
    expert = ids_TK[token, choice].astype(np.int64)
    chose_EW = np.zeros(instance.model.experts * width, dtype=np.uint64)
    np.bitwise_or.at(chose_EW, expert * width + word_T[token], bit_T[token])
    most = max(copies, min(MOST_COPIES, layout.ep, 1 + _spare(instance)))
    load_CE = np.zeros((layout.sets, instance.model.experts), dtype=np.int64)
    np.add.at(load_CE, (layout.set_G[source_T[token]], expert), 1)
    masks = []
    if instance.selection != "nearest" and most > 1:
        copy_MT = _hashed_copies(part.ordinal_T[known_T], instance.selection, most)
        for count in range(1, most + 1):
            for copy in range(count):
                uses = copy_MT[count - 1] == copy
                mask_W = np.zeros(width, dtype=np.uint64)
                np.bitwise_or.at(mask_W, word_T[uses], bit_T[uses])
                masks.append(mask_W)
    caps_G, caps_N = _caps(instance, token.size)
    return Tokens(
        source_L=source_L,
        chose_EW=chose_EW.reshape(-1, width),
        mask_QW=np.stack(masks) if masks else np.full((1, width), ONES),
        load_CE=load_CE,
        most_copies=most,
        planes=int(ids_TK.shape[1]).bit_length(),
        caps_G=caps_G,
        caps_N=caps_N,
    )


def _spare(instance: PlacementInstance) -> int:
    return max(0, instance.slot_count - instance.model.experts)


def _lanes(source_T: IntArray, gpus: int) -> tuple[IntArray, IntArray, IntArray]:
    """Deal each source's tokens to lanes of equal depth; pad with empty bits.

    Returns lane and place in the lane of each token, and the source of each lane.
    The depth is the one with the fewest words, counting two more per lane.
    """
    tokens_S = np.bincount(source_T, minlength=gpus)
    words_S = -(-tokens_S // WORD)
    depths = np.unique(np.concatenate([words_S[words_S > 0], [1, 2, 4, 8, 16, 32, 64]]))
    lanes_D = np.asarray([int((-(-words_S // depth)).sum()) for depth in depths])
    depth = int(depths[np.argmin(lanes_D * (depths + 2))])
    lanes_S = -(-words_S // depth)
    order = np.argsort(source_T, kind="stable")
    place_T = np.empty_like(order)
    starts_S = np.cumsum(tokens_S) - tokens_S
    place_T[order] = np.arange(order.size) - starts_S[source_T[order]]
    lane_T = (np.cumsum(lanes_S) - lanes_S)[source_T] + place_T // (depth * WORD)
    source_L = np.repeat(np.arange(gpus), lanes_S)
    if not source_L.size:
        source_L = np.zeros(1, dtype=np.int64)
    return lane_T, place_T % (depth * WORD), source_L.astype(np.int64)


def _hashed_copies(ordinal_T: IntArray, selection: str, most: int) -> IntArray:
    """Return the copy of each token for 1 … ``most`` copies (rules 18, 19)."""
    hashed_T = ordinal_T.astype(np.uint64)
    if selection == "weighted":
        hashed_T = hashed_T + np.uint64(1)
    hashed_T = (hashed_T * KNUTH) & LOW_32
    count_M1 = np.arange(1, most + 1, dtype=np.uint64)[:, None]
    if selection == "even":
        return (hashed_T % count_M1).astype(np.int64)
    return ((hashed_T * count_M1) >> np.uint64(32)).astype(np.int64)


def _caps(instance: PlacementInstance, pairs: int) -> tuple[FloatArray, FloatArray]:
    """Most pairs that each GPU and each domain may serve (rule 26), rounded down."""

    def most(cap: float | None, gpus: int) -> float:
        if cap is None:
            return np.inf
        return float(floor(Fraction(str(cap)) * pairs * gpus / layout.gpu_count))

    layout, domains = instance.layout, instance.topology.domains
    caps_G = np.full(layout.gpu_count, most(instance.caps.gpu, 1))
    caps_N = np.asarray([most(instance.caps.domain, len(gpus)) for gpus in domains])
    return caps_G, caps_N


def empty_state(network: Network, tokens: Tokens, slots_GJ: IdArray) -> State:
    """Return a state with these slots in which nothing is served yet."""
    experts, width = tokens.chose_EW.shape
    lanes, gpus = tokens.source_L.size, network.domain_G.size
    columns = network.columns
    planes = 0 if network.linear else tokens.planes
    return State(
        slots_GJ=slots_GJ.astype(np.int16).copy(),
        rank_EM=np.full((experts, tokens.most_copies), -1, dtype=np.int64),
        count_E=np.zeros(experts, dtype=np.int64),
        count_CBW=np.zeros((columns, planes, width), dtype=np.uint64),
        any_CW=np.zeros((columns, width), dtype=np.uint64),
        many_CW=np.zeros((columns, width), dtype=np.uint64),
        load_X=np.zeros(network.cost_X.size),
        trial_X=np.zeros(network.cost_X.size),
        pairs_G=np.zeros(gpus),
        change_CL=np.zeros((columns, lanes), dtype=np.int64),
        words_5W=np.zeros((5, width), dtype=np.uint64),
        near_2L=np.zeros((2, lanes), dtype=np.int64),
        swap_2L=np.zeros((2, lanes), dtype=np.int64),
        pairs_N=np.zeros(tokens.caps_N.size),
        power_X=np.zeros(max(network.cost_X.size, gpus)),
    )
