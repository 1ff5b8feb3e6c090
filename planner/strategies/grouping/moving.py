"""An instance whose DP ranks attend elsewhere."""

from dataclasses import replace

import numpy as np

from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.workload.parts import Part, TokenPart


def moved(instance: PlacementInstance, place_S: IntArray) -> PlacementInstance:
    """Return the instance with DP rank r on the group that ``place_S[r]`` had.

    Tokens keep their rank and their place among the tokens of their GPU (rules 13, 15).
    """
    groups = instance.layout.attention_groups
    gpu_G = np.arange(instance.layout.gpu_count)
    for rank, place in enumerate(place_S.tolist()):
        gpu_G[list(groups[rank])] = groups[place]

    def elsewhere(part: Part) -> Part:
        if not isinstance(part, TokenPart):
            return part
        return replace(part, source_T=gpu_G[part.source_T])

    workloads = tuple(
        replace(
            load,
            planning=elsewhere(load.planning),
            holdout=None if load.holdout is None else elsewhere(load.holdout),
        )
        for load in instance.workloads
    )
    layout = replace(
        instance.layout,
        attention_groups=tuple(groups[place] for place in place_S.tolist()),
    )
    return replace(instance, layout=layout, workloads=workloads)
