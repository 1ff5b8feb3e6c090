"""An instance, or a plan, of some of its layers alone."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.instance import PlacementInstance
from planner.workload.parts import CountsPart, Part


def some_layers(
    instance: PlacementInstance, layers: Sequence[int]
) -> PlacementInstance:
    """Return the instance of these layers; caps must not be relative ones."""
    at = np.asarray(layers, dtype=np.int64)

    def less(part: Part) -> Part:
        if isinstance(part, CountsPart):
            return replace(part, tokens_LE=part.tokens_LE[at])
        return replace(part, experts_LTK=np.ascontiguousarray(part.experts_LTK[at]))

    workloads = tuple(
        replace(
            load,
            planning=less(load.planning),
            holdout=None if load.holdout is None else less(load.holdout),
        )
        for load in instance.workloads
    )
    numbers = tuple(instance.model.moe_layers[layer] for layer in layers)
    model = replace(instance.model, moe_layers=numbers)
    return replace(instance, model=model, workloads=workloads)
