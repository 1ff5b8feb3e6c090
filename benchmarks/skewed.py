"""Copies with a free split on 32 domains with skewed homes: value against bound.

``python -m benchmarks.skewed [--seconds 60] [--seeds 0 1 2 3 4] [--threads 2]`` prints
one row per seed: the LP's bound, the value of ``priced``, their gap, the seconds it
took, and beside it EPLB (global counts and packing, duplicates repaired) with the best
split that its placement allows. Everything is a share of a domain's tokens: 1 is a
domain whose every pair leaves, or as many pairs arriving.
"""

import argparse
import os
import time
from statistics import median

import numpy as np

from planner.arrays import BoolArray, FloatArray
from planner.formulation.cut.one_level import OneLevel, best_split
from planner.strategies.base import Limits
from planner.strategies.baselines.eplb import pack_copies
from planner.strategies.priced.place import place

EXPERTS, DOMAINS, SLOTS = 256, 32, 10


def skewed_demand(seed: int) -> FloatArray:
    """Return demand [256 experts, 32 domains]; every domain's sums to 1.

    70 % shared popularity, lognormal with σ 0.8, plus 30 % popularity of the domain's
    own, lognormal with σ 1.2; each is divided by its sum over experts first. Drawn
    from ``numpy.random.default_rng(seed)``: the shared one, then the own [E, N].
    """
    rng = np.random.default_rng(seed)
    shared_E = rng.lognormal(0.0, 0.8, EXPERTS)
    own_EN = rng.lognormal(0.0, 1.2, (EXPERTS, DOMAINS))
    demand: FloatArray = 0.7 * (shared_E / shared_E.sum())[:, None]
    return demand + 0.3 * own_EN / own_EN.sum(axis=0)


def skewed_problem(seed: int) -> OneLevel:
    """Return the problem: 10 slots per domain (320), one port out, one in, equal."""
    return OneLevel(
        demand_EN=skewed_demand(seed),
        slots_N=np.full(DOMAINS, SLOTS),
        up_N=np.ones(DOMAINS),
        down_N=np.ones(DOMAINS),
    )


def eplb_placement(problem: OneLevel) -> BoolArray:
    """Return EPLB's placement by total demand, duplicates repaired (rule 29)."""
    load_E = problem.total_E
    placed_EN = np.zeros(problem.demand_EN.shape, dtype=np.bool_)
    slots = int(problem.slots_N.sum())
    packs = pack_copies(load_E.astype(np.float32), slots, DOMAINS)
    for domain, experts in enumerate(packs):
        placed_EN[experts, domain] = True
    for domain in range(DOMAINS):
        while placed_EN[:, domain].sum() < problem.slots_N[domain]:
            urgency_E = load_E / placed_EN.sum(axis=1)
            urgency_E[placed_EN[:, domain]] = -1.0
            placed_EN[int(np.argmax(urgency_E)), domain] = True
    return placed_EN


def main() -> None:
    """Solve every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    # Compiled once per machine; that is nobody's search time.
    place(skewed_problem(0), Limits(seconds=0.1, threads=1), rounds=1)
    print(
        "| seed | LP bound | value | gap | seconds | full rounds | EPLB, best split |"
    )
    print("|---|---|---|---|---|---|---|")
    gaps = []
    for seed in given.seeds:
        problem = skewed_problem(seed)
        begun = time.perf_counter()
        limits = Limits(seconds=given.seconds, threads=given.threads, seed=0)
        found = place(problem, limits)
        seconds = time.perf_counter() - begun
        eplb_EN = eplb_placement(problem)
        eplb = problem.value(eplb_EN, best_split(problem, eplb_EN))
        gaps.append(1 - found.bound / found.value)
        print(
            f"| {seed} | {found.bound:.6f} | {found.value:.6f} | {gaps[-1]:.3%} "
            f"| {seconds:.1f} | {found.rounds} "
            f"| {eplb:.6f} (+{eplb / found.value - 1:.2%}) |",
            flush=True,
        )
    load = os.getloadavg()[0]
    print(f"\nmedian gap {median(gaps):.3%}, worst {max(gaps):.3%}; load {load:.1f}")


if __name__ == "__main__":
    main()
