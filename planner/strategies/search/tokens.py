"""The tokens of one layer as bits, and the state that a search changes."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.bits import ONES
from planner.strategies.search.choices import Sample, choices_of
from planner.strategies.search.network import Network
from planner.strategies.search.pairs import Drawn, Pairs, pairs_of
from planner.strategies.search.serving import NOBODY, homes_of, sources_decide

Words = NDArray[np.uint64]
KNUTH = np.uint64(2654435769)
LOW_32 = np.uint64(0xFFFFFFFF)
WORD = 64
MOST_COPIES = 16
"""Copies per expert that moves may reach, unless a start has more."""


class Tokens(NamedTuple):
    """The tokens of a layer as bits (``planner.strategies.search.bits``).

    All tokens of a lane are of one class, ``class_L``, and leave from one source GPU,
    ``source_L``; its words are ``first_L[l]`` to ``first_L[l + 1]``. ``chose_FW`` are
    the tokens that chose each expert, and a last row that nobody chose; ``mask_QW``
    row m(m−1)/2 + j holds the tokens that use copy j of m where a hash decides (rules
    18, 19).
    """

    class_L: IntArray
    source_L: IntArray
    first_L: IntArray
    chose_FW: Words
    mask_QW: Words
    most_copies: int
    planes: int
    pairs: Pairs


class State(NamedTuple):
    """What a move changes, and scratch space.

    ``rank_EM`` and ``count_E`` are the copies of each expert in copy order. Columns
    have bit-sliced counters ``count_CBW`` and their summaries. ``near_ES`` is the rank
    that serves each expert to each source where the source decides, ``choice_EH`` the
    rank that serves each home class where the plan says. ``rank_4M``, ``count_4``,
    ``near_2S``, ``choice_2H``, ``column_4L`` and ``used_4W`` describe a move that is
    being judged (``planner.strategies.search.moves``); what follows is scratch, but
    for ``read_1``, the words read so far.
    """

    slots_GJ: IdArray
    rank_EM: IntArray
    count_E: IntArray
    count_CBW: Words
    any_CW: Words
    many_CW: Words
    three_CW: Words
    load_X: FloatArray
    trial_X: FloatArray
    pairs_G: FloatArray
    rank_4M: IntArray
    count_4: IntArray
    near_ES: IntArray
    choice_EH: IntArray
    near_2S: IntArray
    choice_2H: IntArray
    column_4L: IntArray
    used_4W: Words
    marked_C: BoolArray
    moved_W: Words
    pairs_M: FloatArray
    power_X: FloatArray
    read_1: IntArray


def tokens_of(
    instance: PlacementInstance,
    layer: int,
    copies: int,
    sample: Sample | None = None,
) -> Tokens:
    """Return the tokens of a layer of the planning part, or a sample of them.

    ``copies`` is the most copies of one expert in any start. Lanes of one class lie
    side by side.

    Raises
    ------
    TypeError
        For a counts table, which has no tokens.
    """
    layout, experts = instance.layout, instance.model.experts
    choices = choices_of(instance, layer, sample)
    (class_L, source_L), first_L, place_T = _lanes(choices.class_T, choices.source_T)
    word_T, bit_T = place_T // WORD, np.uint64(1) << (place_T % WORD).astype(np.uint64)
    width = int(first_L[-1])
    token, choice = np.nonzero(choices.experts_TK >= 0)
    expert = choices.experts_TK[token, choice].astype(np.int64)
    chose_FW = np.zeros((experts + 1) * width, dtype=np.uint64)
    np.bitwise_or.at(chose_FW, expert * width + word_T[token], bit_T[token])
    most = max(copies, min(MOST_COPIES, layout.ep, 1 + _spare(instance)))
    one = most == 1 or sources_decide(instance, homes_of(instance))

    def uses(ordinal_T: IntArray) -> list[BoolArray]:
        return _every(ordinal_T) if one else _users(instance, ordinal_T, most)

    uses_QT = uses(choices.ordinal_T)
    mask_QW = np.full((len(uses_QT), width), ONES)
    if len(uses_QT) > 1:
        mask_QW[:] = 0
        for mask_W, uses_T in zip(mask_QW, uses_QT, strict=True):
            np.bitwise_or.at(mask_W, word_T[uses_T], bit_T[uses_T])
    seen, drawn = choices, None
    if sample is not None and sample.times_KC is not None:
        seen = choices_of(instance, layer)
        drawn = Drawn(choices, uses_QT, sample.times_KC)
    return Tokens(
        class_L=class_L,
        source_L=source_L,
        first_L=first_L,
        chose_FW=chose_FW.reshape(-1, width),
        mask_QW=mask_QW,
        most_copies=most,
        planes=int(choices.experts_TK.shape[1]).bit_length(),
        pairs=pairs_of(instance, layer, seen, uses(seen.ordinal_T), drawn),
    )


def _every(ordinal_T: IntArray) -> list[BoolArray]:
    return [np.ones(ordinal_T.size, dtype=np.bool_)]


def _users(
    instance: PlacementInstance, ordinal_T: IntArray, most: int
) -> list[BoolArray]:
    """Return which tokens use copy j of m, row m(m−1)/2 + j, by their hash."""
    copy_MT = _hashed_copies(ordinal_T, instance.selection, most)
    return [
        copy_MT[count - 1] == copy
        for count in range(1, most + 1)
        for copy in range(count)
    ]


def _spare(instance: PlacementInstance) -> int:
    return max(0, instance.slot_count - instance.model.experts)


def _lanes(
    class_T: IntArray, source_T: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Give tokens of one class and source a lane of whole words, by class.

    Returns the class and source of each lane, its first word (and the end), and the
    place of each token, in bits. Without tokens there is one lane, of one word.
    """
    if not source_T.size:
        nothing = np.zeros(0, dtype=np.int64)
        return np.zeros((2, 1), dtype=np.int64), np.asarray([0, 1]), nothing
    lane_2L, lane_T, tokens_L = np.unique(
        np.stack([class_T, source_T]), axis=1, return_inverse=True, return_counts=True
    )
    first_L = np.concatenate([[0], np.cumsum(-(-tokens_L // WORD))]).astype(np.int64)
    # One after the other per lane: the place less the number of tokens before it.
    order = np.argsort(lane_T, kind="stable")
    before_L = np.cumsum(tokens_L) - tokens_L
    place_T = np.empty_like(order)
    place_T[order] = np.arange(order.size)
    place_T += (first_L[:-1] * WORD - before_L)[lane_T]
    return np.ascontiguousarray(lane_2L, dtype=np.int64), first_L, place_T


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


def empty_state(network: Network, tokens: Tokens, slots_GJ: IdArray) -> State:
    """Return a state with these slots in which nothing is served yet."""
    experts, gpus = tokens.chose_FW.shape[0] - 1, network.domain_G.size
    width, columns = tokens.chose_FW.shape[1], network.columns
    homes = network.homes.domain_H.size
    planes = 0 if network.linear else tokens.planes
    hashed = 0 if network.by_source else width
    return State(
        slots_GJ=slots_GJ.astype(np.int16).copy(),
        rank_EM=np.full((experts, tokens.most_copies), -1, dtype=np.int64),
        count_E=np.zeros(experts, dtype=np.int64),
        count_CBW=np.zeros((columns, planes, width), dtype=np.uint64),
        any_CW=np.zeros((columns, width), dtype=np.uint64),
        many_CW=np.zeros((columns, width), dtype=np.uint64),
        three_CW=np.zeros((columns, width), dtype=np.uint64),
        load_X=np.zeros(network.cost_X.size),
        trial_X=np.zeros(network.cost_X.size),
        pairs_G=np.zeros(tokens.pairs.caps.domain_P.size),
        rank_4M=np.zeros((4, tokens.most_copies), dtype=np.int64),
        count_4=np.zeros(4, dtype=np.int64),
        near_ES=np.zeros((experts, gpus), dtype=np.int64),
        choice_EH=np.full((experts, homes), NOBODY, dtype=np.int64),
        near_2S=np.zeros((2, gpus), dtype=np.int64),
        choice_2H=np.zeros((2, homes), dtype=np.int64),
        column_4L=np.zeros((4, tokens.source_L.size), dtype=np.int64),
        used_4W=np.zeros((4, hashed), dtype=np.uint64),
        marked_C=np.zeros(columns, dtype=np.bool_),
        moved_W=np.zeros(width, dtype=np.uint64),
        pairs_M=np.zeros(tokens.pairs.caps.most_M.size),
        power_X=np.zeros(max(network.cost_X.size, gpus)),
        read_1=np.zeros(1, dtype=np.int64),
    )
