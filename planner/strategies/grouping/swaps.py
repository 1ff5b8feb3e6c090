"""Exchange the places of DP ranks, as long as that pays."""

import numpy as np

from planner.arrays import FloatArray, IntArray

POWER = 12
"""The busiest link of a leg is followed by this norm: plain maxima have plateaus."""
MOST_ROUNDS = 50
_GAIN = 1e-9
_KEPT = 0.25
"""Links that on average carry less than this share of the busiest are left out."""


def least_loads(
    loads: FloatArray, kind_P: IntArray, *, worst_layer: bool = False
) -> IntArray:
    """Return kinds of ranks by place, after exchanges that lower the loads.

    Parameters
    ----------
    loads
        Of a rank of each kind at each place, by layer, leg and link: [C, P, L, 2, A].
    kind_P
        Kinds by place to begin with.
    """
    loads = _busy(loads, kind_P)
    places = np.arange(kind_P.size)
    kind_P = kind_P.copy()
    total = loads[kind_P, places].sum(axis=0)
    held = float(_cost(total, worst_layer))
    for _ in range(MOST_ROUNDS):
        before = held
        for one in places.tolist():
            others = np.flatnonzero(kind_P != kind_P[one])
            if not others.size:
                return kind_P
            mine, theirs = kind_P[one], kind_P[others]
            change = loads[mine, others] + loads[theirs, one]
            change -= loads[theirs, others] + loads[mine, one]
            cost_O = _cost(total + change, worst_layer)
            best = int(np.argmin(cost_O))
            if cost_O[best] < held * (1 - _GAIN):
                held, total = float(cost_O[best]), total + change[best]
                kind_P[one], kind_P[others[best]] = theirs[best], mine
        if held >= before * (1 - _GAIN):
            break
    return kind_P


def together(taste_CX: FloatArray, kind_P: IntArray, domain_P: IntArray) -> IntArray:
    """Return kinds by place such that those alike in taste share a domain."""
    alike_CC = taste_CX @ taste_CX.T
    places = np.arange(kind_P.size)
    kind_P = kind_P.copy()
    for _ in range(MOST_ROUNDS):
        improved = False
        for one in places.tolist():
            near_CN = _likeness(alike_CC, kind_P, domain_P)
            others = np.flatnonzero(domain_P != domain_P[one])
            if not others.size:
                return kind_P
            mine, theirs = kind_P[one], kind_P[others]
            here, there = domain_P[one], domain_P[others]
            gain_O = near_CN[mine, there] - near_CN[mine, here]
            gain_O += near_CN[theirs, here] - near_CN[theirs, there]
            # Neither meets itself, nor the other any more.
            gain_O += alike_CC[mine, mine] + alike_CC[theirs, theirs]
            gain_O -= 2 * alike_CC[mine, theirs]
            best = int(np.argmax(gain_O))
            if gain_O[best] > _GAIN * kind_P.size:
                kind_P[one], kind_P[others[best]] = theirs[best], mine
                improved = True
        if not improved:
            break
    return kind_P


def _likeness(alike_CC: FloatArray, kind_P: IntArray, domain_P: IntArray) -> FloatArray:
    """Return how alike each kind is to all ranks of each domain [C, N]."""
    number_NC = np.zeros((int(domain_P.max()) + 1, len(alike_CC)))
    np.add.at(number_NC, (domain_P, kind_P), 1.0)
    return np.asarray(alike_CC @ number_NC.T)


def _busy(loads: FloatArray, kind_P: IntArray) -> FloatArray:
    """Leave out links that carry little wherever ranks are, on average."""
    number_C = np.bincount(kind_P, minlength=len(loads))
    mean = np.tensordot(number_C, loads.mean(axis=1), axes=1)
    kept_A = (mean >= _KEPT * mean.max(axis=-1, keepdims=True)).any(axis=(0, 1))
    return np.ascontiguousarray(loads[..., kept_A])


def _cost(loads: FloatArray, worst_layer: bool) -> FloatArray:
    """Return the soft objective [...] of loads [..., L, 2, A]."""
    most = np.maximum(loads.max(axis=-1), 1e-300)
    inner = ((loads / most[..., None]) ** POWER).sum(axis=-1)
    soft_L = (most * inner ** (1 / POWER)).sum(axis=-1)
    total: FloatArray = soft_L.max(axis=-1) if worst_layer else soft_L.sum(axis=-1)
    return total
