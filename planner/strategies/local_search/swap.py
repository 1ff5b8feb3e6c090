"""Compiled: a swap of two experts with one copy each, judged without touching rows.

Most moves are of this kind and most are refused, so the loads they would cause are
computed aside first; only an accepted swap is then carried out.
"""

from typing import Any

from planner.strategies.local_search.compiling import inner
from planner.strategies.local_search.kernel import COPIES, enter, send


@inner  # type: ignore[untyped-decorator]
def move_pairs(network: Any, rows: Any, state: Any, swap: Any, sign: int) -> None:
    """Move the pairs of two experts between their GPUs, in every EP set."""
    first, second, one, two = swap
    for group in range(rows.load_CE.shape[0]):
        base = group * network.ep
        moved = sign * (rows.load_CE[group, one] - rows.load_CE[group, two])
        state.pairs_G[base + first] -= moved
        state.pairs_G[base + second] += moved


@inner  # type: ignore[untyped-decorator]
def note_swap(network: Any, rows: Any, state: Any, swap: Any) -> int:
    """Note the transfers that change if expert ``one`` leaves rank ``first`` for
    ``second`` and expert ``two`` the other way; return how many GPU pairs.
    """
    first, second, one, two = swap
    used = _note_move(network, rows, state, (one, two, first, second), 0)
    return int(_note_move(network, rows, state, (two, one, second, first), used))


@inner  # type: ignore[untyped-decorator]
def _note_move(network: Any, rows: Any, state: Any, move: Any, used: int) -> int:
    expert, other, origin, target = move
    domain_G = network.domain_G
    for entry in range(rows.first_E[expert], rows.first_E[expert + 1]):
        row = rows.row_Z[entry]
        # A row that chose both experts is served by the same two GPUs afterwards.
        if rows.has_RE[row, other]:
            continue
        source, weight = rows.source_R[row], rows.weight_R[row]
        base = source // network.ep * network.ep
        old, new = base + origin, base + target
        if network.mode == COPIES:
            used = send(network, state, source, old, -weight, used)
            used = send(network, state, source, new, weight, used)
            continue
        apart = domain_G[old] != domain_G[new]
        if state.held_RG[row, old] == 1:
            crosses = apart and state.held_RN[row, domain_G[old]] == 1
            used = enter(network, state, source, old, -weight, crosses, used)
        if state.held_RG[row, new] == 0:
            crosses = state.held_RN[row, domain_G[new]] == 0
            used = enter(network, state, source, new, weight, crosses, used)
    return used
