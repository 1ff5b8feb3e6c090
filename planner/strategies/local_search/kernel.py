"""The compiled inner loop: propose, judge by increments, accept or leave.

State of one layer (axes as in ``planner.arrays``; R rows are tokens, or distinct
(source, expert set) pairs with weights):

``held_RG``   how many of a row's experts each GPU serves
``held_RN``   how many GPUs of each remote domain serve some
``load_X``    transfers × shares of every link and leg, then pairs per GPU

A move changes the copies of one or two experts. Only rows that chose one of them
are looked at; the transfers that change are gathered per GPU pair and then carried
to the links through the incidence of that pair.
"""

from typing import Any

import numpy as np
from numba import njit

COPIES, DEDUP_GPU, DEDUP_DOMAIN = 0, 1, 2
NEAREST, EVEN, WEIGHTED = 0, 1, 2


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def nearest_column(
    ranks: Any, count: int, expert: int, domain_G: Any, ep: int, out_G: Any
) -> None:
    """Fill the GPU that serves ``expert`` for every source GPU (rule 17)."""
    for base in range(0, domain_G.size, ep):
        far = 0
        for gpu in range(base, base + ep):
            own, local, first = False, 0, -1
            for j in range(count):
                holder = base + ranks[j]
                own = own or holder == gpu
                if domain_G[holder] == domain_G[gpu]:
                    local += 1
                    if first < 0:
                        first = holder
            if own:
                out_G[gpu] = gpu
            elif count > 1 and 0 < local < count:
                out_G[gpu] = first
            else:
                out_G[gpu] = base + ranks[(far + expert) % count]
                far += 1


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def copies_of(slots_GJ: Any, expert: int, ranks: Any) -> int:
    """Write the EP ranks that hold ``expert`` in copy order; return how many."""
    count = 0
    for gpu in range(slots_GJ.shape[0]):
        for j in range(slots_GJ.shape[1]):
            if slots_GJ[gpu, j] == expert:
                ranks[count] = gpu
                count += 1
    return count


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def served_by(
    selection: int, near_G: Any, ranks: Any, count: int, base: int, gpu: int, mixed: int
) -> int:
    """Return the GPU that serves one expert for a row of source ``gpu``."""
    if selection == NEAREST:
        return int(near_G[gpu])
    if selection == EVEN:
        return int(base + ranks[mixed % count])
    return int(base + ranks[(mixed * count) >> 32])


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _note(pair: int, amount: int, delta_P: Any, touched: Any, used: int) -> int:
    """Add to the change of one GPU pair; remember the pairs that changed."""
    if delta_P[pair, 1] == 0:
        delta_P[pair, 1] = 1
        touched[used] = pair
        used += 1
    delta_P[pair, 0] += amount
    return used


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def hop(
    source: int,
    target: int,
    amount: int,
    relayed: bool,
    domain_G: Any,
    relay_GG: Any,
    delta_P: Any,
    touched: Any,
    used: int,
) -> int:
    """Note a transfer, through its relay where the endpoint asks for it."""
    gpus = domain_G.size
    if source == target:
        return used
    if relayed and domain_G[source] != domain_G[target]:
        relay = relay_GG[source, target]
        used = _note(source * gpus + relay, amount, delta_P, touched, used)
        if relay != target:
            used = _note(relay * gpus + target, amount, delta_P, touched, used)
        return used
    return int(_note(source * gpus + target, amount, delta_P, touched, used))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def shift_row(
    row: int,
    source: int,
    weight: int,
    before: int,
    after: int,
    mode: int,
    relayed: bool,
    domain_G: Any,
    relay_GG: Any,
    held_RG: Any,
    held_RN: Any,
    delta_P: Any,
    touched: Any,
    used: int,
) -> int:
    """Serve one expert of a row by ``after`` instead of ``before``; -1 for none."""
    for step in range(2):
        gpu = before if step == 0 else after
        if gpu < 0:
            continue
        amount = -weight if step == 0 else weight
        if mode == COPIES:
            used = hop(
                source, gpu, amount, relayed, domain_G, relay_GG, delta_P, touched, used
            )
            continue
        if step == 0:
            held_RG[row, gpu] -= 1
            changed = held_RG[row, gpu] == 0
        else:
            changed = held_RG[row, gpu] == 0
            held_RG[row, gpu] += 1
        if not changed:
            continue
        if mode == DEDUP_GPU:
            used = hop(
                source, gpu, amount, relayed, domain_G, relay_GG, delta_P, touched, used
            )
            continue
        start, domain = source, domain_G[gpu]
        if domain != domain_G[source]:
            start = relay_GG[source, gpu]
            if step == 0:
                held_RN[row, domain] -= 1
                crossing = held_RN[row, domain] == 0
            else:
                crossing = held_RN[row, domain] == 0
                held_RN[row, domain] += 1
            if crossing:
                used = hop(
                    source,
                    start,
                    amount,
                    False,
                    domain_G,
                    relay_GG,
                    delta_P,
                    touched,
                    used,
                )
        used = hop(
            start, gpu, amount, False, domain_G, relay_GG, delta_P, touched, used
        )
    return used


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def carry_to_links(
    delta_P: Any,
    touched: Any,
    used: int,
    indptr_P: Any,
    link_Y: Any,
    share_Y: Any,
    load_X: Any,
    sign: float,
) -> None:
    """Add the pairs' changes to the loads of their links, both legs."""
    for index in range(used):
        pair = touched[index]
        amount = sign * delta_P[pair, 0]
        if amount != 0:
            for entry in range(indptr_P[pair], indptr_P[pair + 1]):
                load_X[link_Y[entry]] += amount * share_Y[entry]


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def forget(delta_P: Any, touched: Any, used: int) -> None:
    """Clear the pairs that changed."""
    for index in range(used):
        delta_P[touched[index], 0] = 0
        delta_P[touched[index], 1] = 0


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def exact_value(load_X: Any, cost_X: Any, leg_X: Any, legs: int) -> float:
    """Return the objective: the sum over legs of the greatest load × cost."""
    total = 0.0
    for leg in range(legs):
        most = 0.0
        for x in range(load_X.size):
            if leg_X[x] == leg:
                most = max(most, load_X[x] * cost_X[x])
        total += most
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def smooth_value(
    load_X: Any, cost_X: Any, leg_X: Any, legs: int, scale: float, doublings: int
) -> float:
    """Return Σ_legs scale · (Σ (load·cost/scale)^p)^(1/p) with p = 2^doublings."""
    total = 0.0
    power = 2.0**doublings
    for leg in range(legs):
        inner = 0.0
        for x in range(load_X.size):
            if leg_X[x] == leg:
                term = load_X[x] * cost_X[x] / scale
                for _ in range(doublings):
                    term *= term
                inner += term
        total += scale * inner ** (1.0 / power)
    return total


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def cap_excess(pairs_G: Any, domain_G: Any, caps_G: Any, caps_N: Any) -> float:
    """Return by how many pairs GPUs and domains exceed their caps, summed."""
    excess = 0.0
    domain_N = np.zeros(caps_N.size)
    for gpu in range(pairs_G.size):
        domain_N[domain_G[gpu]] += pairs_G[gpu]
        excess += max(0.0, pairs_G[gpu] - caps_G[gpu])
    for domain in range(caps_N.size):
        excess += max(0.0, domain_N[domain] - caps_N[domain])
    return excess
