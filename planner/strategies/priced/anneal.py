"""The compiled loop: propose a move, screen it by its egress, level, take it or not.

The objective is smoothed to log(Σ exp(κ·(load / target − 1))) / κ over the ports of
both directions. Egress is known at once. Ingress depends on the split, which is
levelled only for moves that could be taken if it were ideal: with all ingress ports
at one level their sum is least, and that level follows from what leaves.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from planner.strategies.priced.moves import (
    confirm,
    experts_moved,
    pour_touched,
    propose,
    remember,
    switch,
    take_back,
)
from planner.strategies.priced.state import inlined, peak, pour, recount
from planner.strategies.search.anneal import draw

REFRESH = 1024
"""Proposals after which the split of everyone is levelled again."""


class Knobs(NamedTuple):
    """What one call is told: how many moves, how hot, how sharp, and the target."""

    proposals: int
    temperature: float
    sharpness: float
    sweeps: int
    target: float


@inlined  # type: ignore[untyped-decorator]
def steepness(load: float, knobs: Any) -> float:
    """Return what a port adds to the smooth objective."""
    return np.exp(knobs.sharpness * (load / knobs.target - 1.0))  # type: ignore[no-any-return]


@inlined  # type: ignore[untyped-decorator]
def egress_sum(ports: Any, state: Any, scratch: Any, knobs: Any) -> float:
    """Return the egress ports' part, each kept in ``steep_N``."""
    total = 0.0
    for domain in range(state.out_N.size):
        time = state.out_N[domain] * ports.out_cost_N[domain]
        scratch.steep_N[domain] = steepness(time, knobs)
        total += scratch.steep_N[domain]
    return total


@inlined  # type: ignore[untyped-decorator]
def ingress_sum(ports: Any, state: Any, scratch: Any, knobs: Any) -> float:
    """Return the ingress ports' part, each weighted by its speed."""
    in_N, in_cost_N, weight_N = state.in_N, ports.in_cost_N, scratch.weight_N
    total = 0.0
    for domain in range(in_N.size):
        total += weight_N[domain] * steepness(in_N[domain] * in_cost_N[domain], knobs)
    return total


@inlined  # type: ignore[untyped-decorator]
def screened(ports: Any, state: Any, scratch: Any, knobs: Any, steps: int) -> Any:
    """Return by how much a move changes the egress part, and the pairs that leave."""
    expert_4, domain_4, slot_4 = scratch.expert_4, scratch.domain_4, scratch.slot_4
    out_4, steep_4, steep_N = scratch.out_4, scratch.steep_4, scratch.steep_N
    demand_EN, out_N, out_cost_N = ports.demand_EN, state.out_N, ports.out_cost_N
    slots_NJ, rise, moved = state.slots_NJ, 0.0, 0.0
    for step in range(steps):
        domain = domain_4[step]
        change = demand_EN[slots_NJ[domain, slot_4[step]], domain]
        change -= demand_EN[expert_4[step], domain]
        out_4[step] = out_N[domain] + change
        steep_4[step] = steepness(out_4[step] * out_cost_N[domain], knobs)
        rise += steep_4[step] - steep_N[domain]
        moved += change
    return rise, moved


@inlined  # type: ignore[untyped-decorator]
def levelled(
    ports: Any, state: Any, scratch: Any, knobs: Any, several: int, enough: float
) -> float:
    """Return the ingress part after as many sweeps as it takes to be ``enough``."""
    count_E, several_E = state.count_E, scratch.several_E
    total: float = ingress_sum(ports, state, scratch, knobs)
    for _ in range(knobs.sweeps):
        if total <= enough:
            break
        for at in range(several):
            expert = several_E[at]
            if count_E[expert] > 1:
                pour(ports, state, scratch.level_N, expert)
        total = ingress_sum(ports, state, scratch, knobs)
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def anneal(
    ports: Any, state: Any, scratch: Any, choices: Any, knobs: Any, more: Any
) -> Any:
    """Try ``knobs.proposals`` moves at one temperature; return (value, moves taken).

    ``more`` is (random_1, best_EN, best_value); ``best_EN`` is overwritten when a
    placement with a better value is met.
    """
    random_1, best_EN, best_value = more
    domains, taken = ports.slots_N.size, 0
    width = ports.down_N.sum()
    out_part = in_part = moving = 0.0
    for number in range(knobs.proposals):
        if number % REFRESH == 0:
            recount(ports, state, scratch.level_N, 2)
            out_part = egress_sum(ports, state, scratch, knobs)
            in_part = ingress_sum(ports, state, scratch, knobs)
            moving = state.out_N.sum()
        steps = propose(ports, state, scratch, choices, random_1)
        if steps == 0:
            continue
        rise, moved = screened(ports, state, scratch, knobs, steps)
        # exp(−(log rise / κ) / T) > chance, turned round: the most it may become.
        chance = (draw(random_1, 1 << 30) + 1.0) / (1 << 30)
        hot = np.exp(-knobs.temperature * knobs.sharpness * np.log(chance))
        most = (out_part + in_part) * hot - out_part - rise
        if not domains * steepness((moving + moved) / width, knobs) <= most:
            continue
        touched = experts_moved(state, scratch, steps)
        several = remember(state, scratch, touched)
        switch(ports, state, scratch, steps)
        pour_touched(ports, state, scratch, touched)
        in_new = levelled(ports, state, scratch, knobs, several, most)
        if not in_new <= most:
            take_back(state, scratch, steps, touched, several)
            continue
        confirm(state, scratch, steps)
        taken += 1
        # Summed anew: after a steep fall increments would be rounding only.
        in_part, moving, out_part = in_new, moving + moved, scratch.steep_N.sum()
        value = peak(ports, state)
        if value < best_value * (1 - 1e-12):
            best_value = value
            best_EN[:, :] = state.held_EN
    return best_value, taken
