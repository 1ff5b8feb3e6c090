"""Top-K choice of experts from scores, plain or limited to the best groups."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from planner.arrays import IntArray
from planner.workload.synth.latent import Floats

# Loops instead of BLAS and argpartition: the order of the additions is fixed, so the
# choices do not depend on the BLAS at hand, and no [T, E] array is needed to choose.


def score(hidden_TR: Floats, router_RE: Floats) -> Floats:
    """Return every token's score for every expert, [T, E]."""
    scores = np.zeros((hidden_TR.shape[0], router_RE.shape[1]), dtype=np.float32)
    _score(hidden_TR, router_RE, scores)
    return scores


def count(
    scores_TE: Floats, bias_E: Floats, *, top_k: int, groups: int, kept: int
) -> IntArray:
    """Return tokens per expert under scores plus bias."""
    load_E = np.zeros(bias_E.size, dtype=np.int64)
    _count(scores_TE, bias_E, top_k, groups, kept, load_E)
    return load_E


def choose(
    scores_TE: Floats, bias_E: Floats, *, top_k: int, groups: int, kept: int
) -> NDArray[np.int16]:
    """Return the chosen experts [T, K], best first.

    Of ``groups`` equal groups of consecutive experts only the ``kept`` with the
    greatest sum of their two best scores are open to a token, as in DeepSeek-V3.
    """
    chosen = np.empty((scores_TE.shape[0], top_k), dtype=np.int16)
    _choose(scores_TE, bias_E, groups, kept, chosen)
    return chosen


@njit(cache=True)
def _score(hidden_TR, router_RE, scores_TE):  # type: ignore[no-untyped-def]
    for t in range(hidden_TR.shape[0]):
        for r in range(router_RE.shape[0]):
            h = hidden_TR[t, r]
            for e in range(router_RE.shape[1]):
                scores_TE[t, e] += h * router_RE[r, e]


@njit(cache=True)
def _open_groups(score_E, bias_E, kept, opened):  # type: ignore[no-untyped-def]
    """Mark the kept groups with the greatest sum of two best scores."""
    groups = opened.size
    width = score_E.size // groups
    sums = np.empty(groups, dtype=np.float32)
    for g in range(groups):
        first = second = np.float32(-np.inf)
        for e in range(g * width, (g + 1) * width):
            value = score_E[e] + bias_E[e]
            if value > second:  # rare: the common case is one comparison
                if value > first:
                    first, second = value, first
                else:
                    second = value
        sums[g] = first + second if width > 1 else first
        opened[g] = False
    for _ in range(kept):
        best = -1
        for g in range(groups):
            if not opened[g] and (best < 0 or sums[g] > sums[best]):
                best = g
        opened[best] = True


@njit(cache=True)
def _pick(score_E, bias_E, opened, chosen_K, best_K):  # type: ignore[no-untyped-def]
    """Fill the best experts of open groups, best first; lower ids win ties."""
    width = score_E.size // opened.size
    last = chosen_K.size - 1
    best_K[:] = -np.inf
    bar = best_K[last]
    for g in range(opened.size):
        if not opened[g]:
            continue
        for e in range(g * width, (g + 1) * width):
            value = score_E[e] + bias_E[e]
            if value > bar:
                k = last
                while k > 0 and value > best_K[k - 1]:
                    best_K[k] = best_K[k - 1]
                    chosen_K[k] = chosen_K[k - 1]
                    k -= 1
                best_K[k] = value
                chosen_K[k] = e
                bar = best_K[last]


@njit(cache=True)
def _choose(scores_TE, bias_E, groups, kept, chosen_TK):  # type: ignore[no-untyped-def]
    opened = np.ones(groups, dtype=np.bool_)
    best_K = np.empty(chosen_TK.shape[1], dtype=np.float32)
    for t in range(scores_TE.shape[0]):
        if kept < groups:
            _open_groups(scores_TE[t], bias_E, kept, opened)
        _pick(scores_TE[t], bias_E, opened, chosen_TK[t], best_K)


@njit(cache=True)
def _count(  # type: ignore[no-untyped-def]
    scores_TE, bias_E, top_k, groups, kept, load_E
):
    opened = np.ones(groups, dtype=np.bool_)
    chosen_K = np.empty(top_k, dtype=np.int16)
    best_K = np.empty(top_k, dtype=np.float32)
    for t in range(scores_TE.shape[0]):
        if kept < groups:
            _open_groups(scores_TE[t], bias_E, kept, opened)
        _pick(scores_TE[t], bias_E, opened, chosen_K, best_K)
        for k in range(top_k):
            load_E[chosen_K[k]] += 1
