"""A plan on the ranks of a host: what every program of a back end needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import FloatArray, IntArray
from planner.errors import UsageError
from planner.executor.choosing import SlotChoice
from planner.executor.counter import split_of_layer
from planner.executor.direct import PAUSES_OF_LAYER, DirectExperts
from planner.executor.host import Host
from planner.executor.layer import PlacedExperts
from planner.executor.model.feed_forward import ExpertFn
from planner.executor.moving.base import Mode, Stops
from planner.executor.moving.copies import Copies
from planner.executor.moving.dedup_domain import DedupDomain
from planner.executor.moving.dedup_gpu import DedupGpu
from planner.executor.precision.base import Precision
from planner.executor.precision.named import FP32
from planner.executor.result import Moved, OutputCheck
from planner.executor.slots import SlotBank
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

TINIEST = 1e-30
MODES: dict[str, type[Mode]] = {
    "copies": Copies,
    "dedup_gpu": DedupGpu,
    "dedup_domain": DedupDomain,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A plan with the rules that say how tokens reach its slots, and as what."""

    plan: PlacementPlan
    layout: ParallelLayout
    traffic: str
    selection: str
    endpoint: str
    precision: Precision = FP32

    @property
    def chained(self) -> bool:
        """Whether tokens move on from layer to layer (traffic ``direct``)."""
        return self.traffic == "direct"

    @property
    def pace(self) -> dict[str, int]:
        """How batches follow each other, as ``interleave`` takes it.

        Two at a time; under ``direct`` one in every layer and one that follows, so
        that a layer works on one part while the next works on the one before.
        """
        if not self.chained:
            return {"at_once": 2}
        layers = len(self.plan.layer_numbers)
        return {"at_once": layers + 1, "stagger": PAUSES_OF_LAYER}

    def choice(self, layer: int, host: Host) -> SlotChoice:
        """Return how one layer's slots are chosen."""
        return SlotChoice(
            self.plan.slots_LGJ[layer],
            split_of_layer(self.plan, layer),
            self.selection,
            self.layout,
            host.device,
        )

    def experts(
        self, layer: int, weights_E: tuple[Tensor, Tensor], expert: ExpertFn, host: Host
    ) -> PlacedExperts:
        """Put one layer's weights into the slots of the ranks hosted here."""
        if self.traffic not in MODES:
            known = ", ".join([*MODES, "direct"])
            raise UsageError(f"--traffic {self.traffic!r}: choose from {known}")
        return PlacedExperts(
            bank=self._bank(layer, weights_E, expert, host),
            mode=MODES[self.traffic](),
            stops=self._stops(host),
            wire=host.wire(),
            wire_format=self.precision.wire,
        )

    def direct(
        self, layer: int, weights_E: tuple[Tensor, Tensor], expert: ExpertFn, host: Host
    ) -> DirectExperts:
        """Do the same for traffic ``direct``."""
        return DirectExperts(
            bank=self._bank(layer, weights_E, expert, host),
            stops=self._stops(host),
            wire=host.wire(chained=True),
            wire_format=self.precision.wire,
        )

    def _bank(
        self, layer: int, weights_E: tuple[Tensor, Tensor], expert: ExpertFn, host: Host
    ) -> SlotBank:
        return SlotBank(
            self.plan.slots_LGJ[layer],
            weights_E,
            host.hosted,
            expert,
            self.precision.weights,
        )

    def _stops(self, host: Host) -> Stops:
        slots = self.plan.slots_LGJ.shape[2]
        return Stops(self.layout, slots, self.endpoint, host.device)


class Homes:
    """Where the tokens of a part come from, as tensors (rules 13, 15)."""

    def __init__(self, part: TokenPart, host: Host) -> None:
        def tensor(values_T: IntArray) -> Tensor:
            return torch.from_numpy(values_T.astype(np.int64)).to(host.device)

        self.source_T = tensor(part.source_T)
        self.rank_T = tensor(part.rank_T)
        self.ordinal_T = tensor(part.ordinal_T)

    def slots(
        self,
        choice: SlotChoice,
        ids_NK: Tensor,
        token_N: Tensor,
        stand_N: Tensor | None = None,
    ) -> Tensor:
        """Return the slot that serves each choice of some tokens of the part.

        Parameters
        ----------
        stand_N
            Where they stand under ``direct``; None: at home.
        """
        source_N = self.source_T[token_N] if stand_N is None else stand_N
        return choice.of(
            ids_NK, source_N, self.rank_T[token_N], self.ordinal_T[token_N]
        )


class Tally:
    """Collects what wires and banks counted, layer by layer, over all processes."""

    def __init__(
        self, placement: Placement, model_spec: MoEModelSpec, host: Host
    ) -> None:
        layers = len(placement.plan.layer_numbers)
        self._host, self._expert_bytes = host, model_spec.expert_bytes
        self._exact = placement.precision.exact
        shape = (layers, host.ranks, host.ranks)
        self._dispatch_LGG = np.zeros(shape, dtype=np.int64)
        self._combine_LGG = np.zeros(shape, dtype=np.int64)
        self._pairs_LG = np.zeros(shape[:2], dtype=np.int64)
        self._slots_G = np.zeros(host.ranks, dtype=np.int64)
        self.error_L: FloatArray = np.zeros(layers)

    def close(self, layer: int, placed: PlacedExperts | DirectExperts) -> None:
        """Take over the counts of a finished layer."""
        hosted = slice(self._host.hosted.start, self._host.hosted.stop)
        self._dispatch_LGG[layer] = placed.wire.dispatch_GG
        self._combine_LGG[layer] = placed.wire.combine_GG
        self._pairs_LG[layer, hosted] = placed.bank.pairs_G
        self._slots_G[hosted] += placed.bank.held_G

    def differs(self, layer: int, found_NH: Tensor, wanted_NH: Tensor) -> None:
        """Note how far a layer's outputs are from the unsharded model's."""
        error = relative_error(found_NH, wanted_NH, mean_at_least=not self._exact)
        self.error_L[layer] = max(self.error_L[layer], error)

    def moved(self, final_error: float, ids_agreeing: float | None = None) -> Moved:
        """Return everything counted on all ranks."""
        host = self._host
        errors = host.worst(np.append(self.error_L, final_error))
        return Moved(
            dispatch_LGG=host.total(self._dispatch_LGG),
            combine_LGG=host.total(self._combine_LGG),
            gpu_pairs_LG=host.total(self._pairs_LG),
            slot_bytes_G=host.total(self._slots_G) * self._expert_bytes,
            buffer_bytes_G=host.total(host.buffers.peak_G),
            outputs=OutputCheck(error_L=errors[:-1], final_error=float(errors[-1])),
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


def relative_error(
    found_TH: Tensor, wanted_TH: Tensor, *, mean_at_least: bool = False
) -> float:
    """Return the greatest difference of a token over its greatest wanted value.

    Parameters
    ----------
    mean_at_least
        Tokens whose values are small are held against the mean over tokens.
    """
    if not len(wanted_TH):
        return 0.0
    difference_T = (found_TH - wanted_TH).abs().amax(dim=1)
    scale_T = wanted_TH.abs().amax(dim=1).clamp(min=TINIEST)
    if mean_at_least:
        scale_T = scale_T.maximum(scale_T.mean())
    return float((difference_T / scale_T).nan_to_num(nan=torch.inf).max())
