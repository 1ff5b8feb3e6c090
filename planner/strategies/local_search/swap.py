"""A swap of two experts that have one copy each, judged without touching the state.

Most moves are of this kind and most are refused, so the loads they would cause are
computed into ``trial_X`` first; only an accepted swap is then carried out.
"""

from typing import Any

from numba import njit

from planner.strategies.local_search.kernel import COPIES, DEDUP_GPU, hop


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def move_pairs(network: Any, rows: Any, state: Any, swap: Any, sign: int) -> None:
    """Move the pairs of two experts between their GPUs, in every EP set."""
    first, second, one, two = swap
    for group in range(rows.load_CE.shape[0]):
        base = group * network.ep
        moved = sign * (rows.load_CE[group, one] - rows.load_CE[group, two])
        state.pairs_G[base + first] -= moved
        state.pairs_G[base + second] += moved


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def note_swap(network: Any, rows: Any, state: Any, swap: Any) -> int:
    """Note the transfers that change if expert ``one`` leaves rank ``first`` for
    ``second`` and expert ``two`` the other way; return how many GPU pairs.
    """
    first, second, one, two = swap
    used = _note_leaving(network, rows, state, one, two, first, second, 0)
    return int(_note_leaving(network, rows, state, two, one, second, first, used))


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _note_leaving(
    network: Any,
    rows: Any,
    state: Any,
    expert: int,
    other: int,
    origin: int,
    target: int,
    used: int,
) -> int:
    mode, relayed = network.mode, network.relayed
    domain_G, relay_GG = network.domain_G, network.relay_GG
    delta_P, touched = state.delta_P, state.touched
    for entry in range(rows.first_E[expert], rows.first_E[expert + 1]):
        row = rows.row_Z[entry]
        # A row that chose both experts is served by the same two GPUs afterwards.
        if rows.has_RE[row, other]:
            continue
        source, weight = rows.source_R[row], rows.weight_R[row]
        base = source // network.ep * network.ep
        a, b = base + origin, base + target
        if mode == COPIES:
            used = hop(
                source, a, -weight, relayed, domain_G, relay_GG, delta_P, touched, used
            )
            used = hop(
                source, b, weight, relayed, domain_G, relay_GG, delta_P, touched, used
            )
            continue
        leaves = state.held_RG[row, a] == 1
        comes = state.held_RG[row, b] == 0
        if mode == DEDUP_GPU:
            if leaves:
                used = hop(
                    source,
                    a,
                    -weight,
                    relayed,
                    domain_G,
                    relay_GG,
                    delta_P,
                    touched,
                    used,
                )
            if comes:
                used = hop(
                    source,
                    b,
                    weight,
                    relayed,
                    domain_G,
                    relay_GG,
                    delta_P,
                    touched,
                    used,
                )
            continue
        home, near, far = domain_G[source], domain_G[a], domain_G[b]
        start = source if near == home else relay_GG[source, a]
        if leaves:
            if near != far and near != home and state.held_RN[row, near] == 1:
                used = hop(
                    source,
                    start,
                    -weight,
                    False,
                    domain_G,
                    relay_GG,
                    delta_P,
                    touched,
                    used,
                )
            used = hop(
                start, a, -weight, False, domain_G, relay_GG, delta_P, touched, used
            )
        start = source if far == home else relay_GG[source, b]
        if comes:
            if near != far and far != home and state.held_RN[row, far] == 0:
                used = hop(
                    source,
                    start,
                    weight,
                    False,
                    domain_G,
                    relay_GG,
                    delta_P,
                    touched,
                    used,
                )
            used = hop(
                start, b, weight, False, domain_G, relay_GG, delta_P, touched, used
            )
    return used
