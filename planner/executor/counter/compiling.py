"""Compile the counter's passes before they are needed."""

from itertools import product

import numpy as np

from planner.executor.counter.counting import Counting
from planner.executor.counter.modes import MODES
from planner.executor.counter.tables import RULES
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.workload.parts import TokenPart


def compile_counter() -> None:
    """Count one token on one GPU in every way there is; what is cached is loaded."""
    zero_T = np.zeros(1, dtype=np.int64)
    part = TokenPart(
        experts_LTK=np.zeros((1, 1, 1), dtype=np.int16),
        source_T=zero_T,
        rank_T=zero_T,
        ordinal_T=zero_T,
        row_T=zero_T,
    )
    layout = ParallelLayout(domain_G=zero_T, ep=1, attention_groups=((0,),))
    slots_LGJ = np.zeros((1, 1, 1), dtype=np.int16)
    plan = PlacementPlan(layer_numbers=(0,), slots_LGJ=slots_LGJ)
    for traffic, selection in product(MODES, RULES):
        counting = Counting(
            plan, layout, traffic=traffic, selection=selection, endpoint="local_nic"
        )
        counting.add(part)
        counting.layers()
