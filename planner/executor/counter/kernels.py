"""The compiled passes over the tokens of one layer.

Nothing branches on what a token chose: a choice without an expert, and one whose
expert has no copy, lead to places of their own that are looked at afterwards, and
"the first time for this token" is added as 0 or 1. Indices are unsigned, so that
none is tested for being negative; nothing allocates, so that no reference is counted.

Letters beside the usual: ``I`` ids as 16 bits (65,535 is none), ``X`` columns,
``H`` hosts, ``C`` cells, ``D`` places in a cell, ``Z`` EP sets, ``Y`` tables of
targets, ``R`` rows of weights, ``M`` distinct numbers of copies.
"""

from functools import partial
from typing import Any

import numpy as np
from numba import njit

NEAREST, EVEN, WEIGHTED = 0, 1, 2
KNUTH = np.uint64(2654435769)
ONE, HIGHEST = np.uint64(1), np.uint64(63)
LOW_32 = np.uint64(0xFFFFFFFF)

_bare = partial(njit, cache=True, nogil=True, _nrt=False, error_model="numpy")
_inlined = partial(
    _bare, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True
)


@_bare()
def hashes(ordinal_T: Any, shift: Any, hash_T: Any) -> None:
    """Hash every token's ordinal plus ``shift`` to 32 bits (rules 18, 19)."""
    for token in range(ordinal_T.size):
        place = np.uint64(ordinal_T[token]) + np.uint64(shift)
        hash_T[token] = (place * KNUTH) & LOW_32


@_bare()
def remainders(hash_T: Any, copies_M: Any, rest_TM: Any) -> None:
    """Take every token's hash modulo each number of copies (rule 18)."""
    for token in range(hash_T.size):
        for place in range(copies_M.size):
            rest_TM[token, place] = hash_T[token] % copies_M[place]


@_inlined()
def _column(
    rule: Any,
    expert: Any,
    token: Any,
    entry_I2: Any,
    rest_TM: Any,
    hash_T: Any,
    row: Any,
    limit_RB: Any,
    half: Any,
) -> Any:
    """Return the column of one choice: its copy, or under nearest its expert."""
    first = entry_I2[expert, 0]
    if rule == NEAREST:
        return first
    if rule == EVEN:
        return first + rest_TM[token, entry_I2[expert, 1]]
    # Halving in step for all experts of the layer, each time by the highest bit of a
    # difference, which says that the hash has reached the limit: nothing to mispredict.
    place = entry_I2[expert, 1]
    limit = limit_RB[row, place + half - ONE]
    copy = half * ((limit - ONE - hash_T[token]) >> HIGHEST)
    while half > ONE:
        half >>= ONE
        limit = limit_RB[row, place + copy + half - ONE]
        copy += half * ((limit - ONE - hash_T[token]) >> HIGHEST)
    return first + copy


@_bare()
def pass_copies(
    rule: Any,
    ids_TK: Any,
    source_T: Any,
    entry_I2: Any,
    rest_TM: Any,
    hash_T: Any,
    row_T: Any,
    limit_RB: Any,
    half: Any,
    pairs_GX: Any,
) -> None:
    """``copies``: one pair of a source and a column per choice."""
    for token in range(ids_TK.shape[0]):
        source, row = source_T[token], row_T[token]
        for choice in range(ids_TK.shape[1]):
            column = _column(
                rule,
                ids_TK[token, choice],
                token,
                entry_I2,
                rest_TM,
                hash_T,
                row,
                limit_RB,
                half,
            )
            pairs_GX[source, column] += 1


@_bare()
def to_hosts(pairs_GX: Any, table_G: Any, host_YX: Any, pairs_GH: Any) -> None:
    """Add pairs of a source and a column up to pairs of a source and a host."""
    for source in range(pairs_GX.shape[0]):
        table = table_G[source]
        for column in range(pairs_GX.shape[1]):
            pairs_GH[source, host_YX[table, column]] += pairs_GX[source, column]


@_bare()
def pass_dedup_gpu(
    rule: Any,
    ids_TK: Any,
    source_T: Any,
    entry_I2: Any,
    rest_TM: Any,
    hash_T: Any,
    row_T: Any,
    limit_RB: Any,
    half: Any,
    set_G: Any,
    table_G: Any,
    host_YX: Any,
    seen_H: Any,
    pairs_GH: Any,
    served_ZH: Any,
) -> None:
    """``dedup_gpu``: one pair of a source and a host per token that needs it."""
    for token in range(ids_TK.shape[0]):
        source, row = source_T[token], row_T[token]
        own, table = set_G[source], table_G[source]
        stamp = np.uint32(token + 1)
        for choice in range(ids_TK.shape[1]):
            column = _column(
                rule,
                ids_TK[token, choice],
                token,
                entry_I2,
                rest_TM,
                hash_T,
                row,
                limit_RB,
                half,
            )
            host = host_YX[table, column]
            pairs_GH[source, host] += seen_H[host] != stamp
            seen_H[host] = stamp
            served_ZH[own, host] += 1


@_bare()
def pass_dedup_domain(
    rule: Any,
    ids_TK: Any,
    source_T: Any,
    entry_I2: Any,
    rest_TM: Any,
    hash_T: Any,
    row_T: Any,
    limit_RB: Any,
    half: Any,
    set_G: Any,
    table_G: Any,
    host_YX: Any,
    cell_ZH: Any,
    relay_GC: Any,
    seen_H: Any,
    seen_C: Any,
    visits_GC: Any,
    fan_ZHD: Any,
    served_ZH: Any,
) -> None:
    """``dedup_domain``: visits of cells, and what relays pass on to each host.

    The source is its own relay in its own cell, so that all cells are alike.
    """
    for token in range(ids_TK.shape[0]):
        source, row = source_T[token], row_T[token]
        own, table = set_G[source], table_G[source]
        stamp = np.uint32(token + 1)
        for choice in range(ids_TK.shape[1]):
            column = _column(
                rule,
                ids_TK[token, choice],
                token,
                entry_I2,
                rest_TM,
                hash_T,
                row,
                limit_RB,
                half,
            )
            host = host_YX[table, column]
            cell = cell_ZH[own, host]
            visits_GC[source, cell] += seen_C[cell] != stamp
            seen_C[cell] = stamp
            fan_ZHD[own, host, relay_GC[source, cell]] += seen_H[host] != stamp
            seen_H[host] = stamp
            served_ZH[own, host] += 1


@_bare()
def pass_direct(
    rule: Any,
    ids_TK: Any,
    stand_T: Any,
    entry_I2: Any,
    rest_TM: Any,
    hash_T: Any,
    row_T: Any,
    limit_RB: Any,
    half: Any,
    set_G: Any,
    table_G: Any,
    host_YX: Any,
    gpu_ZH: Any,
    real_hosts: Any,
    pairs_GH: Any,
    meets_GH: Any,
    next_T: Any,
) -> None:
    """``direct``: from where a token stands, and to where its results meet.

    A token goes on to the GPU of its first choice; without one it stays.
    """
    for token in range(ids_TK.shape[0]):
        stand, row = stand_T[token], row_T[token]
        own, table = set_G[stand], table_G[stand]
        goal = stand
        for choice in range(ids_TK.shape[1]):
            column = _column(
                rule,
                ids_TK[token, choice],
                token,
                entry_I2,
                rest_TM,
                hash_T,
                row,
                limit_RB,
                half,
            )
            host = host_YX[table, column]
            if choice == 0 and host < real_hosts:
                goal = gpu_ZH[own, host]
            pairs_GH[stand, host] += 1
            meets_GH[goal, host] += 1
        next_T[token] = goal


@_bare()
def fill_nearest(
    first_e: Any,
    copies_e: Any,
    expert_e: Any,
    rank_X: Any,
    host_X: Any,
    cell_ZR: Any,
    ep: Any,
    host_GX: Any,
) -> None:
    """Write the host that serves every expert for each GPU (rule 17).

    ``host_GX`` has a column per expert, in the order of ``expert_e``; ``rank_X`` and
    ``host_X`` have one per copy.
    """
    for place in range(expert_e.size):
        expert, first, copies = expert_e[place], first_e[place], copies_e[place]
        for own in range(cell_ZR.shape[0]):
            turn = 0
            for rank in range(ep):
                chosen, near, here = -1, 0, False
                for copy in range(copies):
                    holder = rank_X[first + copy]
                    if holder == rank and not here:
                        chosen, here = copy, True
                    if cell_ZR[own, holder] == cell_ZR[own, rank]:
                        near += 1
                        if chosen < 0:
                            chosen = copy
                if copies == 1:
                    chosen = 0
                elif not here and (near == 0 or near == copies):
                    chosen = (turn + expert) % copies
                    turn += 1
                host_GX[own * ep + rank, place] = host_X[first + chosen]
