"""How many slots the layers may have together on every GPU."""

import numpy as np

from planner.arrays import IntArray
from planner.options import AUTO
from planner.pipeline.attention import dearest_bill
from planner.pipeline.feasibility import mode_of
from planner.pipeline.groups import slots_per_gpu
from planner.pipeline.problem import Problem


class Room:
    """What memory holds, or what was asked for where that is less.

    Attributes
    ----------
    least, mean
        The fewest slots of a layer, and as many as all layers can have alike.
    asked
        Slots per GPU and layer by ``--redundant``; None under ``auto``.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem, options = problem, problem.options
        instance = problem.instance
        self.layers, self.experts = instance.layer_count, instance.model.experts
        self.least = instance.slots_per_gpu
        self.asked: int | None = None
        if options.redundant != AUTO:
            ep = instance.layout.ep
            self.asked = slots_per_gpu(self.experts, ep, options)
        held = [
            slots
            for slots in range(self.least, self.experts + 1)
            if self.in_memory(slots) >= self.layers * slots
        ]
        self.mean = held[-1] if self.asked is None else min(held[-1], self.asked)

    @property
    def is_shared(self) -> bool:
        """Whether one layer could have more slots than all can have alike."""
        more = self.mean + 1
        wanted = more + (self.layers - 1) * self.least
        return more <= self.experts and self.slots(more) >= wanted

    def slots(self, most: int) -> int:
        """Return the slots of a GPU in all layers if none has more than ``most``."""
        held = min(self.in_memory(most), self.layers * self.experts)
        return held if self.asked is None else min(held, self.layers * self.asked)

    def in_memory(self, most: int) -> int:
        """Return how many memory holds; buffers grow with the largest layer."""
        return int(self._held_G(most).min())

    def needs(self, most: int, slots: int) -> IntArray:
        """Return bytes [G] with ``slots`` in all layers, ``most`` in the largest."""
        instance, options = self._problem.instance, self._problem.options
        modes = [mode_of(each) for each in instance.workloads]
        bill = dearest_bill(
            instance.model, instance.topology, instance.layout, most, options, modes
        )
        more = slots - self.layers * most
        needs_G: IntArray = bill.total_G + more * instance.model.expert_bytes
        return needs_G

    def tightest(self, most: int) -> str | None:
        """Say which GPUs decide for the others, None where all hold as many slots."""
        held_G = self._held_G(most)
        least, others = int(held_G.min()), int(held_G.max())
        if least == others:
            return None
        gpus = self._problem.instance.topology.gpus
        names = [gpus[at].id for at in np.flatnonzero(held_G == least).tolist()]
        more = "" if len(names) == 1 else f" and {len(names) - 1} more"
        return (
            "every GPU of a layer has as many slots, so the least memory left decides: "
            f"{names[0]}{more} with room for {least} in all layers, others for up to "
            f"{others}"
        )

    def _held_G(self, most: int) -> IntArray:
        """Return how many slots each GPU's memory holds in all layers."""
        instance = self._problem.instance
        left_G = instance.memory_limit_G - self.needs(most, 0)
        held_G: IntArray = left_G // instance.model.expert_bytes
        return held_G
