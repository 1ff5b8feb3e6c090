"""Pairs that GPUs serve: those of every expert by source or copy, and what caps allow.

The first GPUs stand for the tokens seen, whose caps are kept; where sequences are
drawn anew, every draw has as many GPUs more, on which what is above a cap is only a
margin to be kept small (P counts all of them, M their domains).
"""

from collections.abc import Sequence
from fractions import Fraction
from math import floor
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.choices import Choices
from planner.strategies.search.compiling import bare

MARGIN = 4.0
"""What a draw's pairs above the caps weigh, in shares of all pairs, beside a value of
about 1."""


class Caps(NamedTuple):
    """The most pairs a GPU (P) and a domain (M) may serve; the first are those seen.

    ``domain_P`` is the domain of each GPU, ``weight`` what a pair above weighs where it
    is not seen.
    """

    domain_P: IntArray
    most_P: FloatArray
    most_M: FloatArray
    seen_P: int
    seen_M: int
    weight: float


class Pairs(NamedTuple):
    """Pairs of each expert where they come from and where a hash sends them.

    Where the source decides on a copy, ``load_EU`` are pairs that are served as those
    of GPU ``source_U`` are, by GPUs numbered from ``base_U`` on. Where a hash decides,
    row m(m−1)/2 + j of ``load_CQE`` holds those that use copy j of m, by EP set, the
    sets of all draws one after the other.
    """

    load_EU: FloatArray
    source_U: IntArray
    base_U: IntArray
    load_CQE: FloatArray
    caps: Caps


class Drawn(NamedTuple):
    """Choices that are drawn anew: how often draw k takes each class, [K, C]."""

    choices: Choices
    uses_QT: Sequence[BoolArray]
    times_KC: FloatArray


def pairs_of(
    instance: PlacementInstance,
    layer: int,
    seen: Choices,
    uses_QT: Sequence[BoolArray],
    drawn: Drawn | None,
) -> Pairs:
    """Return the pairs of the tokens seen and, where given, of those drawn.

    ``uses_QT`` says which tokens use copy j of m, row by row of ``load_CQE``.
    """
    layout, experts = instance.layout, instance.model.experts
    gpus = layout.gpu_count * len(instance.views)
    token, expert = _chosen(seen)
    source = seen.source_T[token]
    load_ES = _count(expert, source, (experts, gpus))
    load_CQE = np.stack(
        [
            _count(
                source[used] // layout.ep, expert[used], (gpus // layout.ep, experts)
            )
            for used in (uses_T[token] for uses_T in uses_QT)
        ],
        axis=1,
    )
    workloads = np.bincount(source // layout.gpu_count, minlength=len(instance.views))
    caps = _caps(instance, layer, workloads.tolist())
    every = np.arange(gpus)
    pairs = Pairs(load_ES, every, every - every % layout.ep, load_CQE, caps)
    return pairs if drawn is None else _with_draws(instance, layer, pairs, drawn)


def _chosen(choices: Choices) -> tuple[IntArray, IntArray]:
    """Return token and expert of every pair."""
    token, choice = np.nonzero(choices.experts_TK >= 0)
    return token, choices.experts_TK[token, choice].astype(np.int64)


def _count(row: IntArray, column: IntArray, shape: tuple[int, int]) -> FloatArray:
    """Count pairs by row and column."""
    flat = np.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.float64)


def _with_draws(
    instance: PlacementInstance, layer: int, seen: Pairs, drawn: Drawn
) -> Pairs:
    """Put the pairs of every draw beside those seen."""
    layout, gpus = instance.layout, instance.layout.gpu_count
    draws, classes = drawn.times_KC.shape
    token, expert = _chosen(drawn.choices)
    kind = drawn.choices.class_T[token]
    source_C = np.zeros(classes, dtype=np.int64)
    source_C[drawn.choices.class_T] = drawn.choices.source_T
    shape = (instance.model.experts, classes)
    load_QEC = [
        _count(expert[used], kind[used], shape)
        for used in (uses_T[token] for uses_T in drawn.uses_QT)
    ]
    every = _count(expert, kind, shape)
    sources, of_C = np.unique(source_C, return_inverse=True)
    at_CU = np.eye(sources.size)[of_C]
    set_CC = np.eye(layout.sets)[source_C // layout.ep]
    loads, rows, caps = [seen.load_EU], [seen.load_CQE], [seen.caps]
    for times_C in drawn.times_KC:
        loads.append((every * times_C) @ at_CU)
        rows.append(np.stack([((each * times_C) @ set_CC).T for each in load_QEC], 1))
        caps.append(_caps(instance, layer, [float((every * times_C).sum())]))
    first = [gpus * (1 + draw) for draw in range(draws)]
    return Pairs(
        load_EU=np.ascontiguousarray(np.concatenate(loads, axis=1)),
        source_U=np.concatenate([seen.source_U, np.tile(sources, draws)]),
        base_U=np.concatenate(
            [seen.base_U, *(at + sources - sources % layout.ep for at in first)]
        ),
        load_CQE=np.ascontiguousarray(np.concatenate(rows)),
        caps=_of_all(caps, len(instance.topology.domains)),
    )


def _caps(instance: PlacementInstance, layer: int, pairs_W: Sequence[float]) -> Caps:
    """Most pairs each GPU and domain may serve (rule 26), rounded down.

    ``pairs_W`` are the pairs of each workload; caps hold for each on its own.
    """
    layout, domains = instance.layout, instance.topology.domains

    def most(cap: Fraction | None, pairs: float, gpus: int) -> float:
        if cap is None:
            return np.inf
        return float(floor(cap * Fraction(pairs) * gpus / layout.gpu_count))

    numbered = list(zip(instance.views, pairs_W, strict=True))
    most_P = np.concatenate(
        [
            np.full(layout.gpu_count, most(view.caps.gpu_at(layer), pairs, 1))
            for view, pairs in numbered
        ]
    )
    most_M = [
        most(view.caps.domain_at(layer), pairs, len(gpus))
        for view, pairs in numbered
        for gpus in domains
    ]
    shift = np.repeat(np.arange(len(numbered)) * len(domains), layout.gpu_count)
    return Caps(
        domain_P=np.tile(layout.domain_G, len(numbered)).astype(np.int64) + shift,
        most_P=most_P,
        most_M=np.asarray(most_M),
        seen_P=most_P.size,
        seen_M=len(most_M),
        weight=MARGIN / max(float(sum(pairs_W)), 1.0),
    )


def _of_all(caps: Sequence[Caps], domains: int) -> Caps:
    """Return the caps of what is seen and of every draw, all of which weigh alike."""
    seen, draws = caps[0], len(caps) - 1
    shifts = [draw * domains for draw in range(len(caps))]
    return Caps(
        domain_P=np.concatenate(
            [each.domain_P + shift for each, shift in zip(caps, shifts, strict=True)]
        ),
        most_P=np.concatenate([each.most_P for each in caps]),
        most_M=np.concatenate([each.most_M for each in caps]),
        seen_P=seen.seen_P,
        seen_M=seen.seen_M,
        weight=seen.weight / draws,
    )


@bare()  # type: ignore[untyped-decorator]
def excess_of(pairs_G: Any, pairs_M: Any, caps: Any) -> Any:
    """Return by how many pairs caps are exceeded, and what draws exceed them weighs.

    ``pairs_M`` is scratch.
    """
    excess, margin = 0.0, 0.0
    if caps.most_P[0] < np.inf:
        for gpu in range(caps.seen_P):
            excess += max(0.0, pairs_G[gpu] - caps.most_P[gpu])
        for gpu in range(caps.seen_P, pairs_G.size):
            margin += max(0.0, pairs_G[gpu] - caps.most_P[gpu])
    if caps.most_M[0] < np.inf:
        pairs_M[:] = 0.0
        for gpu in range(pairs_G.size):
            pairs_M[caps.domain_P[gpu]] += pairs_G[gpu]
        for domain in range(caps.seen_M):
            excess += max(0.0, pairs_M[domain] - caps.most_M[domain])
        for domain in range(caps.seen_M, pairs_M.size):
            margin += max(0.0, pairs_M[domain] - caps.most_M[domain])
    return excess, margin * caps.weight
