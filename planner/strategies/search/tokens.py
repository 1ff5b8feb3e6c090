"""The tokens of one layer as bits, and the state that a search changes."""

from fractions import Fraction
from math import floor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.bits import ONES
from planner.strategies.search.choices import Sample, choices_of
from planner.strategies.search.network import Network
from planner.strategies.search.serving import NOBODY, homes_of, sources_decide

Words = NDArray[np.uint64]
KNUTH = np.uint64(2654435769)
LOW_32 = np.uint64(0xFFFFFFFF)
WORD = 64
MOST_COPIES = 16
"""Copies per expert that moves may reach, unless a start has more."""


class Tokens(NamedTuple):
    """The tokens of a layer as bits (``planner.strategies.search.bits``).

    All tokens of a lane leave from one source GPU, ``source_L``; its words are
    ``first_L[l]`` to ``first_L[l + 1]``. ``chose_FW`` are the tokens that chose each
    expert, and a last row that nobody chose; ``mask_QW`` row m(m−1)/2 + j holds the
    tokens that use copy j of m where a hash decides (rules 18, 19). ``load_ES`` are
    pairs by expert and source GPU, ``load_CQE`` by EP set, row of ``mask_QW`` and
    expert; ``caps_G`` and ``caps_N`` the most pairs a GPU and a domain may serve.
    """

    source_L: IntArray
    first_L: IntArray
    chose_FW: Words
    mask_QW: Words
    load_ES: IntArray
    load_CQE: IntArray
    most_copies: int
    planes: int
    caps_G: FloatArray
    caps_N: FloatArray


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
    pairs_N: FloatArray
    power_X: FloatArray
    read_1: IntArray


def tokens_of(
    instance: PlacementInstance,
    layer: int,
    copies: int,
    sample: Sample | None = None,
    class_S: IntArray | None = None,
) -> Tokens:
    """Return the tokens of a layer of the planning part, or a sample of them.

    ``copies`` is the most copies of one expert in any start. Sources of one class,
    where given, lie side by side.

    Raises
    ------
    TypeError
        For a counts table, which has no tokens.
    """
    layout, experts = instance.layout, instance.model.experts
    gpus = layout.gpu_count * len(instance.views)
    ids_TK, source_T, ordinal_T = choices_of(instance, layer, sample)
    order_S = np.arange(gpus) if class_S is None else np.argsort(class_S, kind="stable")
    source_L, first_L, place_T = _lanes(source_T, order_S)
    word_T, bit_T = place_T // WORD, np.uint64(1) << (place_T % WORD).astype(np.uint64)
    width = int(first_L[-1])
    token, choice = np.nonzero(ids_TK >= 0)
    expert = ids_TK[token, choice].astype(np.int64)
    chose_FW = np.zeros((experts + 1) * width, dtype=np.uint64)
    np.bitwise_or.at(chose_FW, expert * width + word_T[token], bit_T[token])
    most = max(copies, min(MOST_COPIES, layout.ep, 1 + _spare(instance)))
    one = most == 1 or sources_decide(instance, homes_of(instance))
    uses_QT = _every(ordinal_T) if one else _users(instance, ordinal_T, most)
    mask_QW = np.full((len(uses_QT), width), ONES)
    if len(uses_QT) > 1:
        mask_QW[:] = 0
        for mask_W, uses_T in zip(mask_QW, uses_QT, strict=True):
            np.bitwise_or.at(mask_W, word_T[uses_T], bit_T[uses_T])
    caps_G, caps_N = _caps(instance, layer, source_T[token] // layout.gpu_count)
    return Tokens(
        source_L=source_L,
        first_L=first_L,
        chose_FW=chose_FW.reshape(-1, width),
        mask_QW=mask_QW,
        load_ES=_pairs(expert, source_T[token], (experts, gpus)),
        load_CQE=np.stack(
            [
                _pairs(
                    source_T[token[used]] // layout.ep,
                    expert[used],
                    (gpus // layout.ep, experts),
                )
                for used in (uses_T[token] for uses_T in uses_QT)
            ],
            axis=1,
        ),
        most_copies=most,
        planes=int(ids_TK.shape[1]).bit_length(),
        caps_G=caps_G,
        caps_N=caps_N,
    )


def _pairs(row: IntArray, column: IntArray, shape: tuple[int, int]) -> IntArray:
    """Count pairs by row and column."""
    flat = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return flat.reshape(shape)


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
    source_T: IntArray, order_S: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Give every source that has tokens a lane of whole words, in this order.

    Returns the source of each lane, its first word (and the end), and the place of
    each token, in bits. Without tokens there is one lane, of one word.
    """
    tokens_S = np.bincount(source_T, minlength=order_S.size)
    source_L = order_S[tokens_S[order_S] > 0]
    if not source_L.size:
        source_L = order_S[:1]
    words_L = np.maximum(-(-tokens_S[source_L] // WORD), 1)
    first_L = np.concatenate([[0], np.cumsum(words_L)]).astype(np.int64)
    first_S = np.zeros_like(order_S)
    first_S[source_L] = first_L[:-1]
    # One after the other per source: the place less the number of tokens before it.
    order = np.argsort(source_T, kind="stable")
    before_S = np.cumsum(tokens_S) - tokens_S
    place_T = np.empty_like(order)
    place_T[order] = np.arange(order.size)
    place_T += (first_S * WORD - before_S)[source_T]
    return source_L.astype(np.int64), first_L, place_T


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


def _caps(
    instance: PlacementInstance, layer: int, workload_P: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Most pairs each GPU and domain may serve (rule 26), rounded down.

    ``workload_P`` is the workload of each pair; caps hold for each on its own.
    """
    layout, domains = instance.layout, instance.topology.domains
    pairs_W = np.bincount(workload_P, minlength=len(instance.views)).tolist()

    def most(cap: Fraction | None, pairs: int, gpus: int) -> float:
        if cap is None:
            return np.inf
        return float(floor(cap * pairs * gpus / layout.gpu_count))

    numbered = list(zip(instance.views, pairs_W, strict=True))
    caps_G = [
        np.full(layout.gpu_count, most(view.caps.gpu_at(layer), pairs, 1))
        for view, pairs in numbered
    ]
    caps_N = [
        most(view.caps.domain_at(layer), pairs, len(gpus))
        for view, pairs in numbered
        for gpus in domains
    ]
    return np.concatenate(caps_G), np.asarray(caps_N)


def empty_state(network: Network, tokens: Tokens, slots_GJ: IdArray) -> State:
    """Return a state with these slots in which nothing is served yet."""
    experts, gpus = tokens.load_ES.shape
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
        pairs_G=np.zeros(gpus),
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
        pairs_N=np.zeros(tokens.caps_N.size),
        power_X=np.zeros(max(network.cost_X.size, gpus)),
        read_1=np.zeros(1, dtype=np.int64),
    )
