"""Counts tables a second time: expected pairs and transfers as exact rationals.

Every DP rank holds tokens/S of each expert (rule 11), its GPUs equal shares of
that (rule 13 in the mean). ``even`` sends 1/m to each copy, ``weighted`` w_j/W and
``nearest`` all of it to the copy of rule 17. Only ``copies`` has a meaning here.
"""

from collections.abc import Mapping
from fractions import Fraction
from math import lcm

import numpy as np

from planner.arrays import ExactArray, IdArray, IntArray
from planner.errors import ManifestError
from planner.layout import ParallelLayout
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
    shares: list[tuple[int, int, int, Fraction]] = []
    for expert, tokens in enumerate(tokens_E.tolist()):
        if tokens == 0:
            continue
        if copies[expert].size == 0:
            raise ManifestError(f"expert {expert} has tokens but no copy")
        nearest_G = nearest_copy_G(copies[expert], expert, layout)
        for dp_rank, group in enumerate(layout.attention_groups):
            held = Fraction(tokens, layout.dp * len(group))
            split = split_of_layer.get(expert, {})
            for gpu in group:
                parts = _parts(
                    selection, copies[expert], split, dp_rank, nearest_G[gpu]
                )
                first = gpu // layout.ep * layout.ep
                shares += [
                    (gpu, first + int(rank), expert, held * part)
                    for rank, part in zip(copies[expert], parts, strict=True)
                    if part
                ]
    denominator = lcm(*{share.denominator for *_, share in shares})
    pairs_GG = np.zeros((layout.gpu_count, layout.gpu_count), dtype=object)
    for source, target, _, share in shares:
        pairs_GG[source, target] += int(share * denominator)
    return pairs_GG, denominator


def transfers_of_pairs(pairs_GG: ExactArray) -> ExactArray:
    """Return the ``copies`` transfers: every pair that leaves its source GPU."""
    transfers_GG = pairs_GG.copy()
    np.fill_diagonal(transfers_GG, 0)
    return transfers_GG


def _parts(
    selection: str,
    ranks: IntArray,
    split: SplitWeights,
    dp_rank: int,
    nearest: int,
) -> list[Fraction]:
    """Share of each copy in what one GPU sends to the expert."""
    if selection == "nearest":
        return [Fraction(int(copy == nearest)) for copy in range(ranks.size)]
    if selection == "even":
        return [Fraction(1, ranks.size)] * ranks.size
    if selection == "weighted":
        weights = weights_for(split, ranks.size, dp_rank)
        return [Fraction(weight, sum(weights)) for weight in weights]
    raise ManifestError(
        "must be nearest, even or weighted", where="/selection", value=selection
    )
