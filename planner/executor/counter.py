"""The replay without tensors: transfers counted token by token from the rules."""

import numpy as np

from planner.executor.result import Moved
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan, SplitWeights
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import both_legs, gpu_pairs, homeward
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart


def count(
    plan: PlacementPlan,
    part: TokenPart,
    *,
    layout: ParallelLayout,
    model_spec: MoEModelSpec,
    traffic: str,
    selection: str,
    endpoint: str,
) -> Moved:
    """Count what every layer moves; needs no torch.

    Raises
    ------
    VerificationError
        A chosen expert has no copy.
    """
    layers, gpus = len(plan.layer_numbers), layout.gpu_count
    dispatch_LGG = np.zeros((layers, gpus, gpus), dtype=np.int64)
    combine_LGG = np.zeros_like(dispatch_LGG)
    pairs_LG = np.zeros((layers, gpus), dtype=np.int64)
    stand_T = part.source_T
    for layer in range(layers):
        targets_TK = chosen_ranks(
            plan.slots_LGJ[layer],
            split_of_layer(plan, layer),
            selection,
            part.experts_LTK[layer],
            stand_T,
            part.rank_T,
            part.ordinal_T,
            layout,
        )
        dispatch, combine, stand_T = both_legs(
            traffic, endpoint, targets_TK, stand_T, layout
        )
        dispatch_LGG[layer], combine_LGG[layer] = dispatch.matrix(), combine.matrix()
        pairs_LG[layer] = gpu_pairs(targets_TK, gpus)
    if traffic == "direct":
        combine_LGG[-1] += homeward(stand_T, part.source_T, gpus).matrix()
    return Moved(
        dispatch_LGG=dispatch_LGG,
        combine_LGG=combine_LGG,
        gpu_pairs_LG=pairs_LG,
        slot_bytes_G=np.tile((plan.slots_LGJ >= 0).sum(axis=(0, 2)), layout.sets)
        * model_spec.expert_bytes,
    )


def split_of_layer(plan: PlacementPlan, layer: int) -> dict[int, SplitWeights]:
    """Return the weights of one layer's copies by expert (rule 19)."""
    return {
        expert: weights
        for (index, expert), weights in plan.split.items()
        if index == layer
    }
