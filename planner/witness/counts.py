"""Counts tables a second time: expected pairs and transfers as exact rationals.

Every DP rank holds tokens/S of each expert (rule 11), its GPUs equal shares of
that (rule 13 in the mean). ``even`` sends 1/m to each copy, ``weighted`` w_j/W and
``nearest`` all of it to the copy of rule 17. Only ``copies`` has a meaning here.
"""

from collections.abc import Mapping
from math import lcm

import numpy as np

from planner.arrays import ExactArray, IdArray, IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.plan import SplitWeights
from planner.witness.selection import copies_of, nearest_copy_G, weights_for


def expected_pairs(
    slots_GJ: IdArray,
    split_of_layer: Mapping[int, SplitWeights],
    selection: str,
    tokens_E: IntArray,
    layout: ParallelLayout,
) -> tuple[ExactArray, int]:
    """Return pairs from every source GPU to every serving GPU, and a denominator.

    Parameters
    ----------
    tokens_E
        (token, expert) pairs of the layer by expert.

    Returns
    -------
    tuple[ExactArray, int]
        ``pairs_GG`` as Python integers [source, target] over the denominator.

    Raises
    ------
    ManifestError
        An expert with tokens has no copy, or its weights break rule 19.
    """
    size = max(tokens_E.size, 1 + int(slots_GJ.max(initial=-1)))
    copies = copies_of(slots_GJ, size)
    senders = []
    for expert, tokens in enumerate(tokens_E.tolist()):
        if tokens and not copies[expert].size:
            raise ManifestError(f"expert {expert} has tokens but no copy")
        if tokens:
            split = split_of_layer.get(expert, {})
            by_weights = _senders(selection, copies[expert], expert, split, layout)
            senders.append((expert, tokens, by_weights))
    common = lcm(
        *{sum(weights) for *_, by_weights in senders for weights in by_weights}
    )
    pairs_GG = np.zeros((layout.gpu_count, layout.gpu_count), dtype=object)
    for expert, tokens, by_weights in senders:
        for weights, gpus in by_weights.items():
            first = np.asarray(gpus) // layout.ep * layout.ep
            for rank, weight in zip(copies[expert].tolist(), weights, strict=True):
                share = tokens * weight * (common // sum(weights))
                pairs_GG[gpus, first + rank] += share
    # Every GPU of a DP rank sends 1/tp of that rank's 1/S.
    return pairs_GG, common * layout.dp * layout.tp


def transfers_of_pairs(pairs_GG: ExactArray) -> PairCounts:
    """Return the ``copies`` transfers: every pair that leaves its source GPU."""
    transfers_GG = pairs_GG.copy()
    np.fill_diagonal(transfers_GG, 0)
    return PairCounts.of_matrix(transfers_GG)


def _senders(
    selection: str,
    ranks: IntArray,
    expert: int,
    split: SplitWeights,
    layout: ParallelLayout,
) -> dict[tuple[int, ...], list[int]]:
    """GPUs that send to one expert, by the weights they give to its copies."""
    m = ranks.size
    by_weights: dict[tuple[int, ...], list[int]] = {}
    if selection == "even":
        return {(1,) * m: list(range(layout.gpu_count))}
    if selection == "nearest":
        for gpu, nearest in enumerate(nearest_copy_G(ranks, expert, layout).tolist()):
            one = tuple(int(copy == nearest) for copy in range(m))
            by_weights.setdefault(one, []).append(gpu)
        return by_weights
    if selection == "weighted":
        for dp_rank, group in enumerate(layout.attention_groups):
            by_weights.setdefault(weights_for(split, m, dp_rank), []).extend(group)
        return by_weights
    raise ManifestError(
        "must be nearest, even or weighted", where="/selection", value=selection
    )
