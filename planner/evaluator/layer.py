"""Loads of one layer: pairs per GPU, transfers per GPU pair, loads per link."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from planner.arrays import ExactArray, IdArray, IntArray
from planner.errors import UsageError
from planner.evaluator.counts import expected_pairs
from planner.instance import PlacementInstance
from planner.pair_counts import PairCounts
from planner.plan import SplitWeights
from planner.traffic.base import TRAFFIC
from planner.traffic.copies import transfers_of_pairs
from planner.traffic.direct import home_transfers, merge_gpus, merge_transfers
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
        Dispatch transfers per ordered GPU pair, over ``denominator``.
    combine
        Combine transfers likewise: the transpose (rule 21), except in ``direct``.
    loads_2A
        Load of every link in dispatch and combine, over ``denominator`` · Q.
    denominator
        1 for token traces; the common denominator of a counts table.
    after_T
        GPU where each token stands after the layer; None unless the traffic mode
        is chained.
    """

    pairs_G: ExactArray
    transfers: PairCounts
    combine: PairCounts
    loads_2A: ExactArray
    denominator: int
    after_T: IntArray | None = None


def layer_loads(
    instance: PlacementInstance,
    part: Part,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
    at_T: IntArray | None = None,
) -> LayerLoads:
    """Return the exact loads of layer index ``layer`` under these slots.

    Parameters
    ----------
    slots_GJ
        Logical experts by EP rank and slot, [ep, J]; duplicates are allowed here
        (baselines are scored with theirs, rule 29).
    split
        The layer's weights by expert (rule 19); used by ``weighted`` only.
    at_T
        GPU where each token stands before the layer; None: its home. Only chained
        traffic looks at it.

    Raises
    ------
    UsageError
        If traffic is chained and a layer after the first is judged without the
        GPUs where its tokens stand.
    """
    if isinstance(part, CountsPart):
        return _counts_loads(instance, part, layer, slots_GJ, split)
    mode = TRAFFIC.get(instance.traffic)
    if mode.chained:
        if at_T is None and layer > 0:
            raise UsageError(
                f"traffic {instance.traffic} ties every layer to the one before: a "
                "layer cannot be judged alone; use --strategy auto or flow"
            )
        if at_T is not None:
            part = replace(part, source_T=at_T)
    layout = instance.layout
    targets_TK = chosen_targets(
        part,
        layer,
        slots_GJ,
        split,
        selection=instance.selection,
        layout=layout,
        experts=instance.model.experts,
    )
    transfers = mode.count(targets_TK, part.source_T, layout, instance.endpoint)
    served = targets_TK[targets_TK >= 0]
    pairs_G = np.bincount(served, minlength=layout.gpu_count).astype(np.int64)
    combine, after_T = transfers.transposed(), None
    if mode.chained:
        after_T = merge_gpus(targets_TK, part.source_T)
        combine = merge_transfers(targets_TK, after_T, layout.gpu_count)
    return _routed(instance, pairs_G, (transfers, combine), 1, after_T)


def _counts_loads(
    instance: PlacementInstance,
    part: CountsPart,
    layer: int,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
) -> LayerLoads:
    pairs_GG, denominator = expected_pairs(instance, part, layer, slots_GJ, split)
    pairs = PairCounts.of_matrix(pairs_GG)
    transfers = transfers_of_pairs(pairs, instance.layout, instance.endpoint)
    legs = (transfers, transfers.transposed())
    return _routed(instance, pairs_GG.sum(axis=0), legs, denominator)


def brought_home(
    instance: PlacementInstance, last: LayerLoads, at_T: IntArray, home_T: IntArray
) -> LayerLoads:
    """Add to the last layer's combine leg what takes its tokens home (rule 20)."""
    homeward = home_transfers(at_T, home_T, instance.layout.gpu_count)
    legs = (last.transfers, last.combine.plus(homeward))
    return _routed(instance, last.pairs_G, legs, last.denominator, last.after_T)


def _routed(
    instance: PlacementInstance,
    pairs_G: ExactArray,
    legs: tuple[PairCounts, PairCounts],
    denominator: int,
    after_T: IntArray | None = None,
) -> LayerLoads:
    return LayerLoads(
        pairs_G=pairs_G,
        transfers=legs[0],
        combine=legs[1],
        loads_2A=np.stack([instance.routes.loads(leg) for leg in legs]),
        denominator=denominator,
        after_T=after_T,
    )
