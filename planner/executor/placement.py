"""What both gatings of back end ``local`` need: the placement and the tally."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import FloatArray, IdArray, IntArray
from planner.executor.counter import split_of_layer
from planner.executor.dispatch import PlacedExperts
from planner.executor.result import Moved, OutputCheck
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.witness.selection import chosen_ranks
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

TINIEST = 1e-30


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A plan with the rules that say how tokens reach its slots."""

    plan: PlacementPlan
    layout: ParallelLayout
    traffic: str
    selection: str
    endpoint: str

    def experts(self, layer: int, w_in_E: Tensor, w_out_E: Tensor) -> PlacedExperts:
        """Put one layer's weights into the slots of the plan."""
        return PlacedExperts(
            slots_GJ=self.plan.slots_LGJ[layer],
            w_in_E=w_in_E,
            w_out_E=w_out_E,
            layout=self.layout,
            traffic=self.traffic,
            endpoint=self.endpoint,
        )

    def targets(
        self,
        layer: int,
        experts_TK: IdArray | IntArray,
        part: TokenPart,
        rows: IntArray,
    ) -> IntArray:
        """Return the GPU that serves each choice of some tokens of a part."""
        return chosen_ranks(
            self.plan.slots_LGJ[layer],
            split_of_layer(self.plan, layer),
            self.selection,
            experts_TK.astype(np.int16),
            part.source_T[rows],
            part.rank_T[rows],
            part.ordinal_T[rows],
            self.layout,
        )


class Tally:
    """Collects what the wires counted, layer by layer."""

    def __init__(self, placement: Placement, model_spec: MoEModelSpec) -> None:
        layers = len(placement.plan.layer_numbers)
        gpus = placement.layout.gpu_count
        self._expert_bytes = model_spec.expert_bytes
        self._dispatch_LGG = np.zeros((layers, gpus, gpus), dtype=np.int64)
        self._combine_LGG = np.zeros((layers, gpus, gpus), dtype=np.int64)
        self._pairs_LG = np.zeros((layers, gpus), dtype=np.int64)
        self._slots_G = np.zeros(gpus, dtype=np.int64)
        self._error_L: FloatArray = np.zeros(layers)

    def close(self, layer: int, placed: PlacedExperts, error: float) -> None:
        """Take over the counts of a finished layer."""
        self._dispatch_LGG[layer] = placed.wire.dispatch_GG
        self._combine_LGG[layer] = placed.wire.combine_GG
        self._pairs_LG[layer] = placed.pairs_G
        self._slots_G += [rank.slots_held for rank in placed.ranks]
        self._error_L[layer] = error

    def moved(self, final_error: float, ids_agreeing: float | None = None) -> Moved:
        """Return everything counted."""
        return Moved(
            dispatch_LGG=self._dispatch_LGG,
            combine_LGG=self._combine_LGG,
            gpu_pairs_LG=self._pairs_LG,
            slot_bytes_G=self._slots_G * self._expert_bytes,
            outputs=OutputCheck(error_L=self._error_L, final_error=final_error),
            ids_agreeing=ids_agreeing,
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread: batches are small, and threads that wait spin."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def relative_error(found_TH: Tensor, wanted_TH: Tensor) -> float:
    """Return the greatest difference of a token over its greatest wanted value."""
    if not len(wanted_TH):
        return 0.0
    difference_T = (found_TH - wanted_TH).abs().amax(dim=1)
    scale_T = wanted_TH.abs().amax(dim=1).clamp(min=TINIEST)
    return float((difference_T / scale_T).nan_to_num(nan=torch.inf).max())
