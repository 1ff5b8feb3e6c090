"""Which copy a token uses: rules 16-19 written a second time, for the witnesses.

Nothing here is shared with the traffic model. Copies are followed expert by
expert, straight from the words of the rules; vectorised over tokens only.
"""

from collections.abc import Mapping

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.errors import ManifestError, VerificationError
from planner.layout import ParallelLayout
from planner.plan import SplitWeights

KNUTH = 2654435769
HASH_RANGE = 1 << 32


def chosen_ranks(
    slots_GJ: IdArray,
    split_of_layer: Mapping[int, SplitWeights],
    selection: str,
    experts_TK: IdArray,
    source_T: IntArray,
    rank_T: IntArray,
    ordinal_T: IntArray,
    layout: ParallelLayout,
) -> IntArray:
    """Return the GPU that serves every (token, expert) of one layer.

    Parameters
    ----------
    slots_GJ
        Logical experts of one EP set, [ep, J]; -1 where there is no slot.
    split_of_layer
        Weights by expert, used by ``weighted`` only; missing means equal.
    selection
        ``nearest``, ``even`` or ``weighted``.
    experts_TK
        Chosen experts, [T, K]; -1 for none.
    source_T, rank_T, ordinal_T
        Source GPU, DP rank and ordinal of every token (rules 13, 15).

    Returns
    -------
    IntArray
        Index of the GPU in the whole cluster, [T, K]; -1 where no expert.

    Raises
    ------
    VerificationError
        A chosen expert has no copy.
    ManifestError
        Weights of a copy are negative, sum to 0 or are too few or too many.
    """
    count = 1 + max(int(experts_TK.max(initial=-1)), int(slots_GJ.max(initial=-1)))
    copies = copies_of(slots_GJ, count)
    flat = experts_TK.reshape(-1).astype(np.int64)
    token = np.repeat(np.arange(experts_TK.shape[0]), experts_TK.shape[1])
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(count + 1))
    targets = np.full(flat.size, -1, dtype=np.int64)
    for expert in range(count):
        pairs = order[starts[expert] : starts[expert + 1]]
        if pairs.size == 0:
            continue
        ranks = copies[expert]
        if ranks.size == 0:
            raise VerificationError([f"expert {expert} is used but has no copy"])
        tokens = token[pairs]
        source = source_T[tokens]
        first_gpu_of_set = source // layout.ep * layout.ep
        if selection == "nearest":
            picked = nearest_copy_G(ranks, expert, layout)[source]
        elif selection == "even":
            picked = (ordinal_T[tokens] * KNUTH) % HASH_RANGE % ranks.size
        elif selection == "weighted":
            picked = _weighted_copy(
                split_of_layer.get(expert, {}),
                ranks.size,
                rank_T[tokens],
                ordinal_T[tokens],
            )
        else:
            raise ManifestError("must be nearest, even or weighted", value=selection)
        targets[pairs] = first_gpu_of_set + ranks[picked]
    return targets.reshape(experts_TK.shape)


def copies_of(slots_GJ: IdArray, count: int) -> list[IntArray]:
    """Return the EP ranks of every expert's copies, in copy order (rule 16)."""
    holders: list[list[int]] = [[] for _ in range(count)]
    for rank, slots in enumerate(slots_GJ.tolist()):
        for expert in slots:
            if expert >= 0:
                holders[expert].append(rank)
    return [np.asarray(ranks, dtype=np.int64) for ranks in holders]


def nearest_copy_G(ranks: IntArray, expert: int, layout: ParallelLayout) -> IntArray:
    """Return the copy that each GPU uses under ``nearest`` (rule 17).

    ``ranks`` are the EP ranks of the expert's copies; the answer counts copies
    from 0 and looks only inside each GPU's own EP set.
    """
    copy_G = np.zeros(layout.gpu_count, dtype=np.int64)
    if ranks.size == 1:
        return copy_G
    for first in range(0, layout.gpu_count, layout.ep):
        domains = layout.domain_G[first : first + layout.ep]
        at_same_gpu = np.arange(layout.ep)[:, None] == ranks[None, :]
        at_same_domain = domains[:, None] == domains[ranks][None, :]
        near = at_same_domain.sum(axis=1)
        served_here = at_same_gpu.any(axis=1)
        served_near = ~served_here & (near > 0) & (near < ranks.size)
        spread = ~served_here & ~served_near
        turn = np.cumsum(spread) - 1
        copy_G[first : first + layout.ep] = np.where(
            served_here,
            at_same_gpu.argmax(axis=1),
            np.where(
                served_near, at_same_domain.argmax(axis=1), (turn + expert) % ranks.size
            ),
        )
    return copy_G


def weights_for(split: SplitWeights, copies: int, dp_rank: int) -> tuple[int, ...]:
    """Return the weights of one expert's copies for one DP rank (rule 19)."""
    own = split.get(str(dp_rank), split.get("*"))
    weights = (1,) * copies if own is None else tuple(own)
    if len(weights) != copies or min(weights) < 0 or sum(weights) == 0:
        raise ManifestError(
            f"needs {copies} weights, none negative, with a sum above 0",
            where="split",
            value=weights,
            fix="give one weight per copy",
        )
    return weights


def _weighted_copy(
    split: SplitWeights, copies: int, rank_T: IntArray, ordinal_T: IntArray
) -> IntArray:
    """First copy j with u·W < 2³²·(w₀ + … + w_j), as integer thresholds on u."""
    u_T = ((ordinal_T + 1) * KNUTH) % HASH_RANGE
    picked = np.zeros(rank_T.size, dtype=np.int64)
    own = {int(rank) for rank in np.unique(rank_T)} if split else {-1}
    for dp_rank in own:
        mine = rank_T == dp_rank if split else np.ones(rank_T.size, dtype=bool)
        weights = weights_for(split, copies, dp_rank)
        total, below, thresholds = sum(weights), 0, []
        for weight in weights:
            below += weight
            thresholds.append(-(-HASH_RANGE * below // total))
        picked[mine] = np.searchsorted(
            np.asarray(thresholds, dtype=np.int64), u_T[mine], side="right"
        )
    return picked
