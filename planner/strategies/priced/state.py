"""What the compiled loop works on: copies, who serves what, loads of ports.

Axes: E experts, N domains, J slots of a domain (padded with -1), Q candidates, 4 the
steps of a move. A copy's place in ``domain_EN`` and ``served_EN`` is its number among
the copies of its expert.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.formulation.cut.one_level import OneLevel, Prices, regrets

inlined = njit(
    cache=True,
    nogil=True,
    forceinline=True,
    no_cpython_wrapper=True,
    no_cfunc_wrapper=True,
)
"""For functions that only compiled code calls: passing states on costs more than their
work. Calling one from Python crashes the process."""
MOST_STEPS = 4
"""Slots that one move can refill."""
CANDIDATES_PER_SLOT = 2
FEWEST_CANDIDATES = 256
FEWEST_NEAR = 4
"""Domains that a displaced expert may always go to."""
_SWEEPS = 100
"""Rounds of levelling a fresh state: loads are then level to many digits."""


class Ports(NamedTuple):
    """The problem: demand, and the time a pair takes on each port (1/down for in)."""

    demand_EN: FloatArray
    slots_N: IntArray
    out_cost_N: FloatArray
    in_cost_N: FloatArray
    down_N: FloatArray


class State(NamedTuple):
    """A placement with a split; ``left_E`` is what other domains want."""

    held_EN: BoolArray
    slots_NJ: IntArray
    count_E: IntArray
    domain_EN: IntArray
    served_EN: FloatArray
    left_E: FloatArray
    out_N: FloatArray
    in_N: FloatArray


class Scratch(NamedTuple):
    """A move (expert, domain, slot of each step) and what is needed to undo it."""

    expert_4: IntArray
    domain_4: IntArray
    slot_4: IntArray
    out_4: FloatArray
    steep_4: FloatArray
    touched_E: IntArray
    several_E: IntArray
    old_count_E: IntArray
    old_left_E: FloatArray
    old_domain_EN: IntArray
    old_served_EN: FloatArray
    old_in_N: FloatArray
    level_N: FloatArray
    steep_N: FloatArray
    weight_N: FloatArray


class Choices(NamedTuple):
    """Copies worth trying, as e·N + n, and the domains near each expert."""

    copy_Q: IntArray
    near_EN: IntArray
    near_E: IntArray


def ports_of_problem(problem: OneLevel) -> Ports:
    """Return the problem as the kernels see it."""
    return Ports(
        demand_EN=np.ascontiguousarray(problem.demand_EN),
        slots_N=problem.slots_N.astype(np.int64),
        out_cost_N=1.0 / problem.up_N,
        in_cost_N=1.0 / problem.down_N,
        down_N=np.ascontiguousarray(problem.down_N),
    )


def empty_scratch(ports: Ports) -> Scratch:
    """Return scratch space for a problem."""
    experts, domains = ports.demand_EN.shape
    return Scratch(
        expert_4=np.zeros(MOST_STEPS, dtype=np.int64),
        domain_4=np.zeros(MOST_STEPS, dtype=np.int64),
        slot_4=np.zeros(MOST_STEPS, dtype=np.int64),
        out_4=np.zeros(MOST_STEPS),
        steep_4=np.zeros(MOST_STEPS),
        touched_E=np.zeros(2 * MOST_STEPS, dtype=np.int64),
        several_E=np.zeros(experts, dtype=np.int64),
        old_count_E=np.zeros(experts, dtype=np.int64),
        old_left_E=np.zeros(experts),
        old_domain_EN=np.zeros((experts, domains), dtype=np.int64),
        old_served_EN=np.zeros((experts, domains)),
        old_in_N=np.zeros(domains),
        level_N=np.zeros(domains),
        steep_N=np.zeros(domains),
        weight_N=ports.down_N / ports.down_N.mean(),
    )


def choices_of(problem: OneLevel, prices: Prices) -> Choices:
    """Return the copies of least regret: twice as many as there are slots."""
    experts, domains = problem.demand_EN.shape
    regret_EN = regrets(problem, prices)
    # Nothing can go where there are no slots.
    regret_EN[:, problem.slots_N == 0] = np.inf
    order = np.argsort(regret_EN.ravel(), kind="stable")
    usable = order[: int((problem.slots_N > 0).sum()) * experts]
    wanted = max(FEWEST_CANDIDATES, CANDIDATES_PER_SLOT * int(problem.slots_N.sum()))
    copy_Q = usable[:wanted]
    wanted_EN = np.zeros((experts, domains), dtype=np.bool_)
    wanted_EN.ravel()[copy_Q] = True
    near_E = np.maximum(wanted_EN.sum(axis=1), FEWEST_NEAR)
    return Choices(
        copy_Q=np.ascontiguousarray(copy_Q),
        near_EN=np.argsort(regret_EN, axis=1, kind="stable"),
        near_E=np.minimum(near_E, int((problem.slots_N > 0).sum())),
    )


def state_of(ports: Ports, held_EN: BoolArray) -> State:
    """Return the state of a placement, its split levelled."""
    experts, domains = held_EN.shape
    slots_NJ = np.full((domains, max(1, int(ports.slots_N.max()))), -1, dtype=np.int64)
    for domain, held_E in enumerate(held_EN.T):
        inside = np.flatnonzero(held_E)
        slots_NJ[domain, : inside.size] = inside
    domain_EN = np.zeros((experts, domains), dtype=np.int64)
    for expert, held_N in enumerate(held_EN):
        copies = np.flatnonzero(held_N)
        domain_EN[expert, : copies.size] = copies
    state = State(
        held_EN=held_EN.copy(),
        slots_NJ=slots_NJ,
        count_E=held_EN.sum(axis=1).astype(np.int64),
        domain_EN=domain_EN,
        served_EN=np.zeros((experts, domains)),
        left_E=np.zeros(experts),
        out_N=np.zeros(domains),
        in_N=np.zeros(domains),
    )
    recount(ports, state, np.zeros(domains), _SWEEPS)
    return state


@inlined  # type: ignore[untyped-decorator]
def pour(ports: Any, state: Any, level_N: Any, expert: int) -> None:
    """Split what is left of one expert so that its copies' ports end level.

    Ports that are higher than the level without it get nothing.
    """
    # Every look into a state counts references: once per array, not per element.
    in_N, down_N, in_cost_N = state.in_N, ports.down_N, ports.in_cost_N
    domain_N, served_N = state.domain_EN[expert], state.served_EN[expert]
    count, left = state.count_E[expert], max(0.0, state.left_E[expert])
    if count == 1:
        in_N[domain_N[0]] += left - served_N[0]
        served_N[0] = left
        return
    width, volume = 0.0, left
    for copy in range(count):
        domain = domain_N[copy]
        other = in_N[domain] - served_N[copy]
        level_N[copy] = other * in_cost_N[domain]
        volume += other
        width += down_N[domain]
    level = volume / width
    for _ in range(count):
        width, volume = 0.0, left
        for copy in range(count):
            if level_N[copy] < level:
                down = down_N[domain_N[copy]]
                volume += level_N[copy] * down
                width += down
        if width == 0.0 or volume >= level * width * (1 - 1e-14):
            break
        level = volume / width
    for copy in range(count):
        domain = domain_N[copy]
        served = max(0.0, level - level_N[copy]) * down_N[domain]
        in_N[domain] += served - served_N[copy]
        served_N[copy] = served


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def recount(ports: Any, state: Any, level_N: Any, sweeps: int) -> None:
    """Work out all loads afresh, then level the split by ``sweeps`` rounds."""
    experts, domains = ports.demand_EN.shape
    state.out_N[:] = 0.0
    state.in_N[:] = 0.0
    for expert in range(experts):
        state.left_E[expert] = 0.0
        for domain in range(domains):
            if not state.held_EN[expert, domain]:
                demand = ports.demand_EN[expert, domain]
                state.out_N[domain] += demand
                state.left_E[expert] += demand
        for copy in range(state.count_E[expert]):
            domain = state.domain_EN[expert, copy]
            state.in_N[domain] += state.served_EN[expert, copy]
    for expert in range(experts):
        if state.count_E[expert] == 1:
            pour(ports, state, level_N, expert)
    for _ in range(sweeps):
        for expert in range(experts):
            if state.count_E[expert] > 1:
                pour(ports, state, level_N, expert)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def peak(ports: Any, state: Any) -> float:
    """Return the objective of the state: the time of the busiest port."""
    out_N, out_cost_N, most = state.out_N, ports.out_cost_N, 0.0
    for domain in range(out_N.size):
        most = max(most, out_N[domain] * out_cost_N[domain])
    in_N, in_cost_N = state.in_N, ports.in_cost_N
    for domain in range(in_N.size):
        most = max(most, in_N[domain] * in_cost_N[domain])
    return most
