"""A bound of chained traffic: the heaviest node must sit in some domain.

Its domain holds few other nodes. With k of its own kind and so many of the other,
a mix of what enters the domain and what leaves it is at least a closed form
(``docs/formulation.md``); the best mix is chosen for every k.
"""

from typing import Any, NamedTuple

import numpy as np

from planner.arrays import IntArray

MIX = 64
"""Mixes are m/64 of what enters and the rest of what leaves."""
_M = np.arange(MIX + 1)[:, None]


class Room(NamedTuple):
    """Most nodes of a domain: of one kind, and of both together."""

    kind: int
    both: int


class Seat(NamedTuple):
    """What enters or leaves the domain of an anchor at least, in 1/128 transfers."""

    value: int
    certificate: dict[str, Any]


def between(weight_UV: IntArray, room: Room) -> Seat:
    """Return the best seat of a dispatch between two layers, tails U and heads V."""
    heads = [_anchored(weight_UV, head, room, "head") for head in _heavy(weight_UV)]
    tails = [_anchored(weight_UV.T, tail, room, "tail") for tail in _heavy(weight_UV.T)]
    return max(heads + tails, key=lambda seat: seat.value)


def _heavy(weight_UV: IntArray) -> list[int]:
    """Return the columns to try: the heaviest few."""
    found: list[int] = np.argsort(-weight_UV.sum(axis=0), kind="stable")[:4].tolist()
    return found


def _anchored(weight_UV: IntArray, anchor: int, room: Room, side: str) -> Seat:
    """Bound the domain of one head; of a tail, given the transpose."""
    entering_V, leaving_U = weight_UV.sum(axis=0), weight_UV.sum(axis=1)
    others = np.delete(np.arange(weight_UV.shape[1]), anchor)
    # Sorted from the greatest: what k - 1 further heads can save a tail.
    top_UK = _running(-np.sort(-weight_UV[:, others], axis=1))
    least_K = _running(np.sort(entering_V[others])[None])[0]
    mixes, value = [], None
    for k in range(1, min(room.kind, weight_UV.shape[1]) + 1):
        partners = min(room.kind, room.both - k)
        saved_U = weight_UV[:, anchor] + top_UK[:, k - 1]
        gain_MU = np.minimum(0, (MIX - _M) * leaving_U[None] - MIX * saved_U[None])
        gain_M = np.sort(gain_MU, axis=1)[:, :partners].sum(axis=1)
        value_M = _M[:, 0] * (entering_V[anchor] + least_K[k - 1]) + gain_M
        mixes.append(int(value_M.argmax()))
        value = _least(value, 2 * int(value_M.max()))
    return Seat(value or 0, {"side": side, "anchor": anchor, "mixes": mixes})


def within(
    weight_UU: IntArray, entering_U: IntArray, leaving_U: IntArray, room: Room
) -> Seat:
    """Return the best seat of a leg inside one layer.

    ``entering_U`` and ``leaving_U`` count all transfers, those of homes less the most
    that one domain's homes can save; ``weight_UU`` are those between experts.
    """
    pair_UU = weight_UU + weight_UU.T
    cost_MU = _M * entering_U[None] + (MIX - _M) * leaving_U[None]
    order = np.argsort(-np.maximum(entering_U, leaving_U), kind="stable")[:4]
    seats = [_inside(pair_UU, cost_MU, int(anchor), room) for anchor in order]
    return max(seats, key=lambda seat: seat.value)


def _inside(pair_UU: IntArray, cost_MU: IntArray, anchor: int, room: Room) -> Seat:
    others = np.delete(np.arange(len(pair_UU)), anchor)
    # A pair of two others is charged to both by halves, hence the factor 2.
    top_UK = _running(-np.sort(-pair_UU[np.ix_(others, others)], axis=1))
    mixes, value = [], None
    for k in range(1, min(room.kind, len(pair_UU)) + 1):
        saved_U = 2 * pair_UU[anchor, others] + top_UK[:, max(0, k - 2)]
        other_MU = 2 * cost_MU[:, others] - MIX * saved_U[None]
        value_M = 2 * cost_MU[:, anchor] + np.sort(other_MU, axis=1)[:, : k - 1].sum(1)
        mixes.append(int(value_M.argmax()))
        value = _least(value, int(value_M.max()))
    return Seat(value or 0, {"side": "within", "anchor": anchor, "mixes": mixes})


def _running(sorted_UV: IntArray) -> IntArray:
    """Return sums of the first 0, 1, 2, … entries of every row."""
    zero = np.zeros((len(sorted_UV), 1), dtype=np.int64)
    return np.concatenate([zero, np.cumsum(sorted_UV, axis=1)], axis=1)


def _least(one: int | None, other: int) -> int:
    return other if one is None else min(one, other)


def saved_by_homes(weight_HU: IntArray, domain_H: IntArray) -> IntArray:
    """Return the most that the homes of one domain save each node of the other side."""
    by_domain = np.zeros((int(domain_H.max()) + 1, weight_HU.shape[1]), dtype=np.int64)
    np.add.at(by_domain, domain_H, weight_HU)
    most_U: IntArray = by_domain.max(axis=0)
    return most_U
