"""Which transfers a layer makes: rules 3 and 20 written a second time.

Everything follows from the domains, the EP sets and the GPU that serves each
(token, expert); rails and relays are worked out here again on purpose.
"""

import numpy as np

from planner.arrays import IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout


def transfer_counts(
    mode: str,
    endpoint: str,
    targets_TK: IntArray,
    source_T: IntArray,
    layout: ParallelLayout,
) -> IntArray:
    """Return the dispatch transfers of one layer, ``counts_GG[source, target]``.

    Parameters
    ----------
    mode
        ``copies``, ``dedup_gpu``, ``dedup_domain`` or ``direct``.
    endpoint
        ``dest_forward`` relays ``copies`` and ``dedup_gpu`` as two unmerged
        transfers; ``dedup_domain`` always relays (rule 7).
    targets_TK
        GPU that serves each (token, expert); -1 for none.
    source_T
        GPU each token leaves from; under ``direct`` where it stands.
    """
    token_P, target_P = _pairs(targets_TK)
    source_P = source_T[token_P]
    if mode in ("copies", "direct"):
        counts_GG = _count(source_P, target_P, layout.gpu_count)
        return forwarded(counts_GG, layout) if endpoint == "dest_forward" else counts_GG
    token_P, target_P = _distinct(token_P, target_P, layout.gpu_count)
    source_P = source_T[token_P]
    if mode == "dedup_gpu":
        counts_GG = _count(source_P, target_P, layout.gpu_count)
        return forwarded(counts_GG, layout) if endpoint == "dest_forward" else counts_GG
    if mode == "dedup_domain":
        return _two_level(token_P, source_P, target_P, layout)
    raise ManifestError(
        "must be copies, dedup_gpu, dedup_domain or direct",
        where="/traffic",
        value=mode,
    )


def both_legs(
    mode: str,
    endpoint: str,
    targets_TK: IntArray,
    stand_T: IntArray,
    layout: ParallelLayout,
) -> tuple[IntArray, IntArray, IntArray]:
    """Return dispatch and combine transfers, and where each token stands next.

    Combine is dispatch turned round (rule 21). Under ``direct`` (rule 20) results
    meet where the token's first expert ran, and there it stays; a token without a
    first expert stays, and its results meet, where it stood.
    """
    counts_GG = transfer_counts(mode, endpoint, targets_TK, stand_T, layout)
    if mode != "direct":
        return counts_GG, counts_GG.T.copy(), stand_T
    next_T = stand_T.astype(np.int64)
    led = np.flatnonzero(targets_TK[:, 0] >= 0)
    next_T[led] = targets_TK[led, 0]
    token_P, target_P = _pairs(targets_TK)
    return counts_GG, _count(target_P, next_T[token_P], layout.gpu_count), next_T


def homeward(stand_T: IntArray, home_T: IntArray, gpu_count: int) -> IntArray:
    """Return the transfers that take tokens home after the last layer."""
    return _count(stand_T.astype(np.int64), home_T.astype(np.int64), gpu_count)


def gpu_pairs(targets_TK: IntArray, gpu_count: int) -> IntArray:
    """Return the (token, expert) pairs that every GPU computes, [G]."""
    return np.bincount(targets_TK[targets_TK >= 0], minlength=gpu_count).astype(
        np.int64
    )


def relays(layout: ParallelLayout) -> IntArray:
    """Return ``relay_GN[s, n]``: the relay for source s in domain n, -1 if none.

    Only the GPUs of the source's own EP set count.
    """
    domain_count = int(layout.domain_G.max()) + 1
    relay_GN = np.full((layout.gpu_count, domain_count), -1, dtype=np.int64)
    for first in range(0, layout.gpu_count, layout.ep):
        block = np.arange(first, first + layout.ep)
        rail: dict[int, int] = {}
        rail_of_block = []
        for gpu in block.tolist():
            domain = int(layout.domain_G[gpu])
            rail_of_block.append(rail.get(domain, 0))
            rail[domain] = rail_of_block[-1] + 1
        for domain in rail:
            members = block[layout.domain_G[block] == domain]
            relay_GN[block, domain] = members[np.asarray(rail_of_block) % members.size]
    return relay_GN


def forwarded(counts_GG: IntArray, layout: ParallelLayout) -> IntArray:
    """Send transfers between domains through the relay, unmerged (rule 7).

    Works on any exact counts: integers in an object array stay exact.
    """
    relay_GN = relays(layout)
    result = np.zeros_like(counts_GG)
    source, target = np.nonzero(counts_GG)
    amount = counts_GG[source, target]
    far = layout.domain_G[source] != layout.domain_G[target]
    relay = relay_GN[source, layout.domain_G[target]]
    first_stop = np.where(far, relay, target)
    np.add.at(result, (source, first_stop), amount)
    onward = far & (relay != target)
    np.add.at(result, (relay[onward], target[onward]), amount[onward])
    return result


def _two_level(
    token_P: IntArray, source_P: IntArray, target_P: IntArray, layout: ParallelLayout
) -> IntArray:
    """``dedup_domain`` for distinct (token, GPU) pairs."""
    domain_P = layout.domain_G[target_P]
    near = layout.domain_G[source_P] == domain_P
    counts_GG = _count(source_P[near], target_P[near], layout.gpu_count)
    # One message per (token, remote domain), to the relay on the source's rail.
    relay_GN = relays(layout)
    far = ~near
    width = int(layout.domain_G.max()) + 1
    visits = np.unique(token_P[far] * width + domain_P[far], return_index=True)[1]
    visitor, visited = source_P[far][visits], domain_P[far][visits]
    counts_GG += _count(visitor, relay_GN[visitor, visited], layout.gpu_count)
    # From there one copy per distinct GPU that is not the relay itself.
    relay_P = relay_GN[source_P[far], domain_P[far]]
    return counts_GG + _count(relay_P, target_P[far], layout.gpu_count)


def _pairs(targets_TK: IntArray) -> tuple[IntArray, IntArray]:
    """Token and target of every (token, expert) that has an expert."""
    token, choice = np.nonzero(targets_TK >= 0)
    return token.astype(np.int64), targets_TK[token, choice]


def _distinct(
    token_P: IntArray, target_P: IntArray, gpu_count: int
) -> tuple[IntArray, IntArray]:
    """Every (token, GPU) once."""
    keys = np.unique(token_P * gpu_count + target_P)
    return keys // gpu_count, keys % gpu_count


def _count(source_P: IntArray, target_P: IntArray, gpu_count: int) -> IntArray:
    """Transfers per ordered pair; none where source and target are one GPU."""
    moves = source_P != target_P
    keys = source_P[moves] * gpu_count + target_P[moves]
    counts = np.bincount(keys, minlength=gpu_count * gpu_count)
    return counts.reshape(gpu_count, gpu_count).astype(np.int64)
