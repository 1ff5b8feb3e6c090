"""Compiled: who serves a row, and which transfers change when that changes.

State of one layer (axes as in ``planner.arrays``; R rows are tokens, or distinct
(source, expert set) pairs with weights; X are the places that can bind):

``held_RG``   how many of a row's experts each GPU serves
``held_RN``   how many GPUs of each remote domain serve some
``load_X``    transfers × shares at every place
``delta_P``   change of every GPU pair's transfers, and whether it is noted

A move changes the copies of one or two experts. Only rows that chose one of them
are looked at; the transfers that change are gathered per GPU pair and then carried
to the places through the incidence of that pair.
"""

from typing import Any

from planner.strategies.local_search.compiling import inner

COPIES, DEDUP_GPU, DEDUP_DOMAIN = 0, 1, 2
NEAREST, EVEN, WEIGHTED = 0, 1, 2


@inner  # type: ignore[untyped-decorator]
def nearest_column(
    network: Any, ranks: Any, count: int, expert: int, out_G: Any
) -> None:
    """Fill the GPU that serves ``expert`` for every source GPU (rule 17)."""
    domain_G, ep = network.domain_G, network.ep
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


@inner  # type: ignore[untyped-decorator]
def copies_of(slots_GJ: Any, expert: int, ranks: Any) -> int:
    """Write the EP ranks that hold ``expert`` in copy order; return how many."""
    count = 0
    for gpu in range(slots_GJ.shape[0]):
        for j in range(slots_GJ.shape[1]):
            if slots_GJ[gpu, j] == expert:
                ranks[count] = gpu
                count += 1
    return count


@inner  # type: ignore[untyped-decorator]
def served_by(
    network: Any, rows: Any, row: int, near_G: Any, ranks: Any, count: int
) -> int:
    """Return the GPU that serves one expert for a row; -1 if it has no copy."""
    if count == 0:
        return -1
    source = rows.source_R[row]
    if network.selection == NEAREST:
        return int(near_G[source])
    base, mixed = source // network.ep * network.ep, rows.mixed_R[row]
    if network.selection == EVEN:
        return int(base + ranks[mixed % count])
    return int(base + ranks[(mixed * count) >> 32])


@inner  # type: ignore[untyped-decorator]
def note(state: Any, pair: int, amount: int, used: int) -> int:
    """Add to the change of one GPU pair; return how many pairs are noted."""
    if state.delta_P[pair, 1] == 0:
        state.delta_P[pair, 1] = 1
        state.touched[used] = pair
        used += 1
    state.delta_P[pair, 0] += amount
    return used


@inner  # type: ignore[untyped-decorator]
def hop(
    network: Any, state: Any, source: int, target: int, amount: int, used: int
) -> int:
    """Note one transfer between two GPUs."""
    if source == target:
        return used
    return int(note(state, source * network.domain_G.size + target, amount, used))


@inner  # type: ignore[untyped-decorator]
def send(
    network: Any, state: Any, source: int, target: int, amount: int, used: int
) -> int:
    """Note a transfer, through its relay where the endpoint asks for it."""
    if network.relayed and network.domain_G[source] != network.domain_G[target]:
        relay = network.relay_GG[source, target]
        used = hop(network, state, source, relay, amount, used)
        return int(hop(network, state, relay, target, amount, used))
    return int(hop(network, state, source, target, amount, used))


@inner  # type: ignore[untyped-decorator]
def enter(
    network: Any,
    state: Any,
    source: int,
    gpu: int,
    amount: int,
    crosses: bool,
    used: int,
) -> int:
    """Note that a GPU starts (or stops) serving a row, with its way through relays.

    ``crosses`` says that it is the only GPU of its remote domain that does.
    """
    if network.mode != DEDUP_DOMAIN:
        return int(send(network, state, source, gpu, amount, used))
    start = source
    if network.domain_G[gpu] != network.domain_G[source]:
        start = network.relay_GG[source, gpu]
        if crosses:
            used = hop(network, state, source, start, amount, used)
    return int(hop(network, state, start, gpu, amount, used))


@inner  # type: ignore[untyped-decorator]
def add_serving(
    network: Any, rows: Any, state: Any, row: int, gpu: int, sign: int, used: int
) -> int:
    """Let ``gpu`` serve one expert more (sign 1) or fewer (-1) of a row."""
    source, amount = rows.source_R[row], sign * rows.weight_R[row]
    state.pairs_G[gpu] += amount
    if network.mode == COPIES:
        return int(send(network, state, source, gpu, amount, used))
    held = int(state.held_RG[row, gpu])
    state.held_RG[row, gpu] = held + sign
    if (held if sign > 0 else held - 1) != 0:
        return used
    crosses = False
    domain = network.domain_G[gpu]
    if domain != network.domain_G[source]:
        inside = int(state.held_RN[row, domain])
        state.held_RN[row, domain] = inside + sign
        crosses = (inside if sign > 0 else inside - 1) == 0
    return int(enter(network, state, source, gpu, amount, crosses, used))


@inner  # type: ignore[untyped-decorator]
def settle(network: Any, state: Any, load_X: Any, used: int, sign: float) -> None:
    """Carry the noted transfers to the places they load."""
    for index in range(used):
        pair = state.touched[index]
        amount = sign * state.delta_P[pair, 0]
        if amount != 0:
            for entry in range(network.indptr_P[pair], network.indptr_P[pair + 1]):
                load_X[network.place_Y[entry]] += amount * network.share_Y[entry]


@inner  # type: ignore[untyped-decorator]
def forget(state: Any, used: int) -> None:
    """Clear the noted pairs."""
    for index in range(used):
        state.delta_P[state.touched[index], 0] = 0
        state.delta_P[state.touched[index], 1] = 0
