"""Prices of blocks of GPUs: a Lagrangian bound of ``copies`` on large clusters.

As :mod:`planner.verifier.certificates.prices`, but what is bought and sold is held by
blocks of GPUs. Let y[e, B] = 1 if some GPU of block B holds e. Then Σ_B y[e, B] >= 1,
a block of n GPUs has Σ_e y[e, B] <= n·J, and whoever serves a pair from s sits in a
block with y = 1 of s's EP set and costs at least c[s, B], the least c[s, g] of its
GPUs. For every price v[e, C] of a pair whose source is in block C, slot prices ν >= 0
and cover prices κ >= 0 therefore

    objective >= Σ_e (Σ_s D·v + κ − Σ_B max(0, Σ_s D·max(0, v − c[s, B]) + κ − ν[B]))
                 − J · Σ_B n_B·ν[B].

Caps and the rules of selection only shrink the set of plans.
"""

from fractions import Fraction

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence
from planner.verifier.certificates.prices import link_prices, through_relays

_FITS = 2**62
_LONGEST = 256
"""Links of a route; the sums of longer ones wrap round to less, never to more."""


@CHECKERS.register("block_prices")
def block_prices(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``copies``: the bound of the module docstring, in whole numbers of ``unit``."""
    if evidence.traffic != "copies" or evidence.objective == "gpu_tokens":
        return Fraction(0)
    unit, layout = Fraction(certificate["unit"]), evidence.layout
    block_G = _blocks(certificate, evidence)
    first_B = np.unique(block_G, return_index=True)[1]
    slot_B = _whole(certificate["slots"], first_B.shape)
    cover_E = _whole(certificate["cover"], (evidence.experts,))
    pair_EB = _whole(certificate["pairs"], (evidence.experts, first_B.size))
    if unit <= 0 or slot_B.min() < 0 or cover_E.min() < 0:
        return Fraction(0)
    cost_GB = _costs(certificate, evidence, unit, block_G)
    over, own_GB = evidence.denominator, layout.set_G[:, None] == layout.set_G[first_B]
    size_B, demand_EG = np.bincount(block_G), evidence.pairs_EG
    rent = sum(
        int(price) * int(size) for price, size in zip(slot_B, size_B, strict=True)
    )
    value = -evidence.slots_per_gpu * rent * over
    most = max(int(np.abs(each).max()) for each in (pair_EB, slot_B, cover_E))
    fits = (int(demand_EG.sum()) + 2 * over) * most < _FITS
    number = np.int64 if fits else object
    for expert, demand_G in enumerate(demand_EG.astype(number)):
        price_G = pair_EB[expert].astype(number)[block_G]
        cover = int(cover_E[expert]) * over
        sold_GB = np.maximum(price_G[:, None] - cost_GB, 0) * own_GB
        earned_B = (demand_G[:, None] * sold_GB).sum(axis=0)
        gain_B = earned_B + (int(cover_E[expert]) - slot_B.astype(number)) * over
        value += int((demand_G * price_G).sum()) + cover
        value -= int(np.maximum(gain_B, 0).astype(object).sum())
    return Fraction(value, over) * unit


def _blocks(certificate: Certificate, evidence: Evidence) -> IntArray:
    """Return the block of each GPU: 0, 1, … in order, none over two EP sets."""
    block_G = np.asarray(certificate["blocks"], dtype=np.int64)
    count, set_G = evidence.layout.gpu_count, evidence.layout.set_G
    if block_G.shape != (count,) or len(np.unique(block_G)) != block_G.max() + 1:
        raise ValueError("blocks must number every GPU's block from 0 on")
    if block_G.min() < 0 or len(np.unique(np.stack([block_G, set_G]), axis=1)[0]) > (
        block_G.max() + 1
    ):
        raise ValueError("a block must lie within one EP set")
    return block_G


def _whole(values: object, shape: tuple[int, ...]) -> IntArray:
    array = np.asarray(values, dtype=np.int64)
    if array.shape != shape:
        raise ValueError(f"shape {array.shape}, not {shape}")
    return array


def _costs(
    certificate: Certificate, evidence: Evidence, unit: Fraction, block_G: IntArray
) -> IntArray:
    """Return c[s, B] in units, rounded down: a smaller cost lowers the bound."""
    gpus = evidence.layout.gpu_count
    total_GG = np.zeros((gpus, gpus), dtype=np.int64)
    for number, leg in enumerate(("dispatch", "combine")):
        price_A, over = link_prices(certificate["links"].get(leg, {}), number, evidence)
        route_GG = _route_costs(_in_units(price_A, over, unit, evidence), evidence)
        total_GG += through_relays(route_GG if number == 0 else route_GG.T, evidence)
    order = np.argsort(block_G, kind="stable")
    starts = np.searchsorted(block_G[order], np.arange(int(block_G.max()) + 1))
    least: IntArray = np.minimum.reduceat(total_GG[:, order], starts, axis=1)
    return least


def _in_units(
    price_A: ExactArray, over: int, unit: Fraction, evidence: Evidence
) -> IntArray:
    """Return each link's price per Q-th part of a transfer, in whole units."""
    scale = unit * over * evidence.routes.q
    whole = [int(price) * scale.denominator // scale.numerator for price in price_A]
    # So that routes fit in int64. A cost that is cut off only lowers the bound.
    most = _FITS // (_LONGEST * evidence.routes.q)
    return np.asarray([min(price, most) for price in whole], dtype=np.int64)


def _route_costs(price_A: IntArray, evidence: Evidence) -> IntArray:
    """Price of one transfer by ordered pair of GPUs."""
    gpus = evidence.layout.gpu_count
    indptr, links_X, value_X = evidence.routes.incidence()
    running = np.concatenate([[0], np.cumsum(price_A[links_X] * value_X)])
    cost: IntArray = (running[indptr[1:]] - running[indptr[:-1]]).reshape(gpus, gpus)
    return cost.astype(np.int64)
