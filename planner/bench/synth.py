"""Synthetic traces for cases: skewed, tagged, and the same on every machine.

Only integers are used, from a generator written out here (SplitMix64), so that no
release of NumPy and no processor changes a case.

Axes: T tokens, K top-k, E experts.
"""

from pathlib import Path
from typing import Any

import numpy as np

from planner.arrays import IntArray
from planner.bench.case import SynthDocument
from planner.errors import InputError
from planner.workload.trace_writer import write_trace

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def write_synth(path: Path, wanted: SynthDocument) -> None:
    """Write the trace that ``wanted`` describes.

    Raises
    ------
    InputError
        If a kind of requests has fewer experts to choose from than top-k.
    """
    rows = np.arange(wanted.tokens)
    sequence_T = rows // wanted.sequence_tokens
    tag_T = sequence_T % wanted.tags
    write_trace(
        path,
        metadata={
            "model": "synthetic: tagged",
            "synthetic": "tagged",
            "num_experts": wanted.experts,
            "top_k": wanted.top_k,
            "order": wanted.order or "sorted",
            "seed": wanted.seed,
            "source": "synthetic: kinds of requests prefer shares of the experts",
        },
        seq_id=sequence_T,
        pos=rows % wanted.sequence_tokens,
        tag=[f"tag{tag}" for tag in tag_T],
        phase="prefill",
        rank=_ranks(wanted, tag_T) if wanted.ranks else None,
        experts={
            layer: choices(wanted, layer, tag_T) for layer in range(wanted.layers)
        },
    )


def choices(wanted: SynthDocument, layer: int, tag_T: IntArray) -> IntArray:
    """Return the experts of every token in a layer [T, K], in the order wanted.

    An expert's weight is its popularity times ``affinity`` within its kind's share;
    the k-th choice is drawn by weight from those not chosen yet.
    """
    weight_TE = _weights(wanted, layer)[tag_T]
    if (np.count_nonzero(weight_TE, axis=1) < wanted.top_k).any():
        raise InputError(
            f"is less than top_k {wanted.top_k}: a kind of requests has too few "
            "experts to choose from",
            where="/trace/synth/experts",
            value=wanted.experts,
            fix="lower tags or top_k, or set affinity above 0",
        )
    tokens = tag_T.size
    chosen_TK = np.empty((tokens, wanted.top_k), dtype=np.int64)
    rows = np.arange(tokens)
    for k in range(wanted.top_k):
        stream = (wanted.seed * 1_009 + layer) * 4_099 + k
        total_T = weight_TE.sum(axis=1)
        ticket_T = _draws(stream, tokens) % total_T
        chosen_TK[:, k] = np.argmax(
            np.cumsum(weight_TE, axis=1) > ticket_T[:, None], axis=1
        )
        weight_TE[rows, chosen_TK[:, k]] = 0
    if wanted.order is None:
        chosen_TK.sort(axis=1)
    return chosen_TK


def _weights(wanted: SynthDocument, layer: int) -> IntArray:
    """Return the weight of every expert for every kind [tags, E]."""
    experts = np.arange(wanted.experts)
    # Layers differ in who is popular and in who belongs to a kind.
    place_E = (experts + 5 * (layer + 1)) % wanted.experts
    shift_E = (experts + 3 * (layer + 1)) % wanted.experts
    popular_E = 100 + 100 * wanted.skew * (wanted.experts - place_E) // wanted.experts
    kind_E = shift_E * wanted.tags // wanted.experts
    own = kind_E[None, :] == np.arange(wanted.tags)[:, None]
    if wanted.affinity == 0:
        return np.where(own, popular_E, 0)
    return np.where(own, popular_E * wanted.affinity, popular_E)


def _ranks(wanted: SynthDocument, tag_T: IntArray) -> Any:
    """Homes: kind c gets the ranks from ⌊c·S/tags⌋ on, its sequences in turn."""
    first = tag_T * wanted.ranks // wanted.tags
    block = np.maximum(1, (tag_T + 1) * wanted.ranks // wanted.tags - first)
    turn = np.arange(tag_T.size) // wanted.sequence_tokens // wanted.tags
    return first + turn % block


def _draws(stream: int, count: int) -> IntArray:
    """Return ``count`` integers in 0 … 2^62 − 1 (SplitMix64 of their index)."""
    with np.errstate(over="ignore"):
        start = np.uint64(stream) * _STEP * np.uint64(count + 1)
        word = start + np.arange(1, count + 1, dtype=np.uint64) * _STEP
        word = (word ^ (word >> np.uint64(30))) * _MIX[0]
        word = (word ^ (word >> np.uint64(27))) * _MIX[1]
        word ^= word >> np.uint64(31)
    return (word >> np.uint64(2)).astype(np.int64)
