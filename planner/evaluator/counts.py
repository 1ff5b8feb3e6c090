"""Expected pairs of a counts table: every DP rank holds tokens/S (rule 11)."""

from collections.abc import Mapping
from math import lcm

import numpy as np

from planner.arrays import ExactArray, IdArray
from planner.instance import PlacementInstance
from planner.plan import SplitWeights
from planner.traffic.selection import copy_table, nearest_GE, weights_SEM
from planner.workload.parts import CountsPart


def expected_pairs(
    instance: PlacementInstance,
    part: CountsPart,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> tuple[ExactArray, int]:
    """Return exact pairs by source and serving GPU [G, G] and their denominator.

    A source GPU holds tokens/G of every expert: 1/S by DP rank, then 1/t by the
    GPUs of its attention group. ``nearest`` takes one copy, ``even`` 1/m of each,
    ``weighted`` w_j/W.
    """
    layout, tokens_E = instance.layout, part.tokens_LE[layer]
    experts, gpus = tokens_E.size, layout.gpu_count
    if instance.selection == "nearest":
        near_GE = nearest_GE(slots_GJ, experts, layout)
        pairs_GG = np.zeros((gpus, gpus), dtype=np.int64)
        rows = np.arange(gpus)[:, None]
        held = near_GE >= 0
        amounts = np.broadcast_to(tokens_E, near_GE.shape)
        np.add.at(
            pairs_GG,
            (np.broadcast_to(rows, near_GE.shape)[held], near_GE[held]),
            amounts[held],
        )
        return pairs_GG, gpus
    table = copy_table(slots_GJ, experts)
    used = split if instance.selection == "weighted" else {}
    weights = weights_SEM(table, used, layout.dp)
    return _shared_pairs(instance, tokens_E.tolist(), table.rank_EM, weights)


def _shared_pairs(
    instance: PlacementInstance,
    tokens_E: list[int],
    rank_EM: ExactArray,
    weights_SEM_: ExactArray,
) -> tuple[ExactArray, int]:
    layout = instance.layout
    gpus, total_SE = layout.gpu_count, weights_SEM_.sum(axis=2)
    common = lcm(*(int(total) for total in np.unique(total_SE) if total > 0))
    pairs_GG = np.zeros((gpus, gpus), dtype=object)
    base_G = layout.set_G * layout.ep
    rank_of_G = np.zeros(gpus, dtype=np.int64)
    for rank, group in enumerate(layout.attention_groups):
        rank_of_G[list(group)] = rank
    sources = np.arange(gpus)
    for expert, tokens in enumerate(tokens_E):
        if tokens == 0:
            continue
        scale_G = [tokens * (common // int(w)) for w in total_SE[rank_of_G, expert]]
        for copy, holder in enumerate(rank_EM[expert]):
            if holder >= 0:
                amounts = weights_SEM_[rank_of_G, expert, copy].astype(object)
                pairs_GG[sources, base_G + holder] += amounts * scale_G
    return pairs_GG, common * gpus
