"""Which transfers a layer makes: rules 3 and 20 written a second time.

Everything follows from the domains, the EP sets and the GPU that serves each
(token, expert); rails and relays are worked out here again on purpose.
"""

import numpy as np

from planner.arrays import IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts


def transfer_counts(
    mode: str,
    endpoint: str,
    targets_TK: IntArray,
    source_T: IntArray,
    layout: ParallelLayout,
) -> PairCounts:
    """Return the dispatch transfers of one layer.

    Parameters
    ----------
    mode
        ``copies``, ``dedup_gpu``, ``dedup_domain`` or ``direct``.
    endpoint
        ``dest_forward`` and ``pxn`` relay ``copies`` and ``dedup_gpu`` as two
        unmerged transfers; ``dedup_domain`` always relays (rule 7).
    targets_TK
        GPU that serves each (token, expert); -1 for none.
    source_T
        GPU each token leaves from; under ``direct`` where it stands.
    """
    token_P, target_P = _pairs(targets_TK)
    source_P = source_T[token_P]
    if mode in ("copies", "direct"):
        counts = _count(source_P, target_P, layout.gpu_count)
        return forwarded(counts, layout, endpoint)
    token_P, target_P = _distinct(token_P, target_P, layout.gpu_count)
    source_P = source_T[token_P]
    if mode == "dedup_gpu":
        counts = _count(source_P, target_P, layout.gpu_count)
        return forwarded(counts, layout, endpoint)
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
) -> tuple[PairCounts, PairCounts, IntArray]:
    """Return dispatch and combine transfers, and where each token stands next.

    Combine is dispatch turned round (rule 21). Under ``direct`` (rule 20) results
    meet where the token's first expert ran, and there it stays; a token without a
    first expert stays, and its results meet, where it stood.
    """
    counts = transfer_counts(mode, endpoint, targets_TK, stand_T, layout)
    if mode != "direct":
        return counts, counts.transposed(), stand_T
    next_T = stand_T.astype(np.int64)
    led = np.flatnonzero(targets_TK[:, 0] >= 0)
    next_T[led] = targets_TK[led, 0]
    token_P, target_P = _pairs(targets_TK)
    return counts, _count(target_P, next_T[token_P], layout.gpu_count), next_T


def homeward(stand_T: IntArray, home_T: IntArray, gpu_count: int) -> PairCounts:
    """Return the transfers that take tokens home after the last layer."""
    return _count(stand_T.astype(np.int64), home_T.astype(np.int64), gpu_count)


def gpu_pairs(targets_TK: IntArray, gpu_count: int) -> IntArray:
    """Return the (token, expert) pairs that every GPU computes, [G]."""
    return np.bincount(targets_TK[targets_TK >= 0], minlength=gpu_count).astype(
        np.int64
    )


def relay_of(
    layout: ParallelLayout, source_P: IntArray, domain_P: IntArray
) -> IntArray:
    """Return the relay for every (source, domain); -1 where the set has none there.

    Only the GPUs of the source's own EP set count.
    """
    gpus, count = layout.gpu_count, int(layout.domain_G.max()) + 1
    cell_G = np.arange(gpus) // layout.ep * count + layout.domain_G
    # GPUs by (EP set, domain), in EP order inside: a GPU's place there is its rail.
    order = np.argsort(cell_G, kind="stable")
    begin_G = np.searchsorted(cell_G[order], cell_G)
    place_G = np.empty(gpus, dtype=np.int64)
    place_G[order] = np.arange(gpus)
    rail_P = (place_G - begin_G)[source_P]
    wanted_P = source_P // layout.ep * count + domain_P
    begin_P = np.searchsorted(cell_G[order], wanted_P)
    size_P = np.searchsorted(cell_G[order], wanted_P, side="right") - begin_P
    found: IntArray = order[(begin_P + rail_P % np.maximum(size_P, 1)) % gpus]
    return np.where(size_P > 0, found, -1)


def relays(layout: ParallelLayout) -> IntArray:
    """Return ``relay_GN[s, n]``: the relay for source s in domain n, -1 if none."""
    domains = int(layout.domain_G.max()) + 1
    source, domain = np.indices((layout.gpu_count, domains))
    return relay_of(layout, source, domain)


def first_stop(
    layout: ParallelLayout, source_P: IntArray, target_P: IntArray, endpoint: str
) -> IntArray:
    """Return where each transfer stops first under an endpoint mode (rule 7)."""
    if endpoint == "dest_forward":
        relay_P = relay_of(layout, source_P, layout.domain_G[target_P])
    elif endpoint == "pxn":
        relay_P = relay_of(layout, target_P, layout.domain_G[source_P])
    else:
        return target_P
    near = layout.domain_G[source_P] == layout.domain_G[target_P]
    # pxn: a source on the target's rail is its own relay.
    return np.where(near | (relay_P < 0) | (relay_P == source_P), target_P, relay_P)


def forwarded(counts: PairCounts, layout: ParallelLayout, endpoint: str) -> PairCounts:
    """Send transfers between domains through the relay, unmerged (rule 7).

    Works on any exact counts: integers in an object array stay exact.
    """
    if endpoint == "local_nic":
        return counts
    source, target, amount = counts.source_n, counts.target_n, counts.count_n
    first_stop_n = first_stop(layout, source, target, endpoint)
    onward = first_stop_n != target
    return PairCounts.summed(
        layout.gpu_count,
        np.concatenate([source, first_stop_n[onward]]),
        np.concatenate([first_stop_n, target[onward]]),
        np.concatenate([amount, amount[onward]]),
    )


def _two_level(
    token_P: IntArray, source_P: IntArray, target_P: IntArray, layout: ParallelLayout
) -> PairCounts:
    """``dedup_domain`` for distinct (token, GPU) pairs."""
    domain_P = layout.domain_G[target_P]
    far = layout.domain_G[source_P] != domain_P
    relay_P = relay_of(layout, source_P[far], domain_P[far])
    # One message per (token, remote domain), to the relay on the source's rail.
    width = int(layout.domain_G.max()) + 1
    visits = np.unique(token_P[far] * width + domain_P[far], return_index=True)[1]
    # From there one copy per distinct GPU that is not the relay itself.
    return _count(
        np.concatenate([source_P[~far], source_P[far][visits], relay_P]),
        np.concatenate([target_P[~far], relay_P[visits], target_P[far]]),
        layout.gpu_count,
    )


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


def _count(source_P: IntArray, target_P: IntArray, gpu_count: int) -> PairCounts:
    """Transfers per ordered pair; none where source and target are one GPU."""
    moves = source_P != target_P
    return PairCounts.of_keys(gpu_count, source_P[moves] * gpu_count + target_P[moves])
