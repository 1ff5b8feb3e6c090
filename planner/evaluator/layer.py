"""Loads of one layer: pairs per GPU, transfers per GPU pair, loads per link."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.arrays import ExactArray, IdArray
from planner.evaluator.counts import expected_pairs
from planner.instance import PlacementInstance
from planner.pair_counts import PairCounts
from planner.plan import SplitWeights
from planner.traffic.base import TRAFFIC
from planner.traffic.copies import transfers_of_pairs
from planner.traffic.selection import chosen_targets
from planner.workload.parts import CountsPart, Part


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerLoads:
    """Exact loads of one layer.

    Attributes
    ----------
    pairs_G
        (token, expert) pairs computed on each GPU, over ``denominator``.
    transfers
        Dispatch transfers per ordered GPU pair, over ``denominator``; combine is
        the transpose (rule 21).
    loads_2A
        Load of every link in dispatch and combine, over ``denominator`` · Q.
    denominator
        1 for token traces; the common denominator of a counts table.
    """

    pairs_G: ExactArray
    transfers: PairCounts
    loads_2A: ExactArray
    denominator: int


def layer_loads(
    instance: PlacementInstance,
    part: Part,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> LayerLoads:
    """Return the exact loads of layer index ``layer`` under these slots.

    Parameters
    ----------
    slots_GJ
        Logical experts by EP rank and slot, [ep, J]; duplicates are allowed here
        (baselines are scored with theirs, rule 29).
    split
        The layer's weights by expert (rule 19); used by ``weighted`` only.
    """
    layout = instance.layout
    if isinstance(part, CountsPart):
        pairs_GG, denominator = expected_pairs(instance, part, layer, slots_GJ, split)
        pairs = PairCounts.of_matrix(pairs_GG)
        transfers = transfers_of_pairs(pairs, layout, instance.endpoint)
        pairs_G = pairs_GG.sum(axis=0)
    else:
        denominator = 1
        targets_TK = chosen_targets(
            part,
            layer,
            slots_GJ,
            split,
            selection=instance.selection,
            layout=layout,
            experts=instance.model.experts,
        )
        mode = TRAFFIC.get(instance.traffic)
        transfers = mode.count(targets_TK, part.source_T, layout, instance.endpoint)
        served = targets_TK[targets_TK >= 0]
        pairs_G = np.bincount(served, minlength=layout.gpu_count).astype(np.int64)
    dispatch_A = instance.routes.loads(transfers)
    combine_A = instance.routes.loads(transfers.transposed())
    return LayerLoads(
        pairs_G=pairs_G,
        transfers=transfers,
        loads_2A=np.stack([dispatch_A, combine_A]),
        denominator=denominator,
    )
