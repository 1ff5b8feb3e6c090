"""What a process of a back end is: the ranks it hosts, its wires, sums over all.

``local`` hosts every rank in one process; ``distributed`` hosts one rank in each.
A program written against :class:`Host` runs on both.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.executor.stepping import Steps
from planner.executor.timeline.record import Interval, Recorder
from planner.executor.wire.base import Columns, Wire
from planner.executor.wire.buffers import Buffers
from planner.executor.wire.delay import Delay
from planner.executor.wire.local import LocalWire
from planner.executor.wire.posted import Posted
from planner.executor.wire.processes import ProcessWire

FEWEST_BATCHES, LEAST_TOKENS = 4, 8
"""A rank's tokens are cut, so that one batch computes while another travels, but not
into batches of fewer tokens than that."""


class Host(Protocol):
    """One process of a back end.

    Attributes
    ----------
    ranks
        G, all ranks there are.
    hosted
        Those of this process.
    device
        Where its tensors are.
    watch
        Notes when it computes and when rows travel; None: nobody does.
    buffers
        What lies in buffers, of the wires that are asked for from now on.
    """

    ranks: int
    hosted: range
    device: torch.device
    watch: Recorder | None
    buffers: Buffers

    def wire(self, *, chained: bool = False) -> Wire:
        """Return a wire for one layer.

        Parameters
        ----------
        chained
            Whether ranks may be in other layers at a time (traffic ``direct``).
        """
        ...

    def total(self, counts: IntArray) -> IntArray:
        """Add up an array over all processes."""
        ...

    def worst(self, values: FloatArray) -> FloatArray:
        """Return the greatest of each value over all processes."""
        ...

    def from_first(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Compute something in the first process and tell all.

        Parameters
        ----------
        like
            A tensor of the result's shape and type.
        """
        ...

    def gathered(self, rows_BS: Columns) -> Steps[Columns]:
        """Return the tensors of all processes side by side along dimension 1.

        They must have the same shape everywhere.
        """
        ...

    def everyone(self, value: Any) -> list[Any]:
        """Return a picklable value of each process, by rank."""
        ...


class LocalHost:
    """All ranks in this process."""

    def __init__(self, ranks: int, device: torch.device | None = None) -> None:
        self.ranks, self.hosted = ranks, range(ranks)
        self.watch: Recorder | None = None
        self.buffers = Buffers(ranks)
        self.device = device or torch.device("cpu")

    def wire(self, *, chained: bool = False) -> Wire:
        """Return a wire for one layer."""
        turns = self.device.type == "cuda"
        return LocalWire(self.ranks, self.buffers, turns=turns)

    def total(self, counts: IntArray) -> IntArray:
        """Add up an array over all processes."""
        return counts

    def worst(self, values: FloatArray) -> FloatArray:
        """Return the greatest of each value over all processes."""
        return values

    def everyone(self, value: Any) -> list[Any]:
        """Return a picklable value of each process."""
        return [value]

    def from_first(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Compute something here."""
        return compute()

    def gathered(self, rows_BS: Columns) -> Steps[Columns]:
        """Return what there is: all of it is here."""
        yield from ()
        return rows_BS


class ProcessHost:
    """One rank of a process group.

    Parameters
    ----------
    group
        Its ranks are the GPUs of the plan, in EP order.
    delay
        A slower network than there is.
    """

    def __init__(
        self, group: Any, device: torch.device, delay: Delay | None = None
    ) -> None:
        self._group, self._delay = group, delay
        self.ranks, self.device = group.size(), device
        self.hosted = range(group.rank(), group.rank() + 1)
        self.watch: Recorder | None = None
        self.buffers = Buffers(self.ranks)

    def watched(self) -> None:
        """Start a timeline, at one moment on all ranks."""
        dist.barrier(group=self._group)
        self.watch = Recorder(self.hosted.start, time.perf_counter())

    @property
    def noted(self) -> list[Interval]:
        """The timeline so far."""
        return [] if self.watch is None else self.watch.intervals

    def wire(self, *, chained: bool = False) -> Wire:
        """Return a wire for one layer."""
        return ProcessWire(self._group, self._delay, self.buffers, prompt=not chained)

    def total(self, counts: IntArray) -> IntArray:
        """Add up an array over all processes."""
        found: IntArray = self._reduced(counts, dist.ReduceOp.SUM)
        return found

    def worst(self, values: FloatArray) -> FloatArray:
        """Return the greatest of each value over all processes."""
        found: FloatArray = self._reduced(values, dist.ReduceOp.MAX)
        return found

    def from_first(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """Compute something in the first process and tell all."""
        value = compute().contiguous() if self._group.rank() == 0 else like.clone()
        dist.broadcast(value, group=self._group, group_src=0)
        return value

    def gathered(self, rows_BS: Columns) -> Steps[Columns]:
        """Return the tensors of all processes side by side along dimension 1."""
        found, posted = [], []
        for rows in rows_BS:
            parts = [torch.empty_like(rows) for _ in range(self.ranks)]
            work = dist.all_gather(
                parts, rows.contiguous(), group=self._group, async_op=True
            )
            posted.append(Posted(work, "context", rows.nbytes))
            found.append(parts)
        yield from posted
        return tuple(torch.cat(parts, dim=1) for parts in found)

    def everyone(self, value: Any) -> list[Any]:
        """Return a picklable value of each process, by rank."""
        values = [None] * self.ranks
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _reduced(self, array: Any, op: Any) -> Any:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
        dist.all_reduce(tensor, op, group=self._group)
        return tensor.cpu().numpy()


def tokens_of(host: Host, source_T: IntArray) -> IntArray:
    """Return the tokens that leave from ranks hosted here, in order."""
    mine_T: BoolArray = (source_T >= host.hosted.start) & (source_T < host.hosted.stop)
    found: IntArray = np.flatnonzero(mine_T)
    return found


def batches_of(host: Host, source_T: IntArray, most: int) -> list[IntArray]:
    """Cut the tokens of this process into batches, as many as any other process has.

    There are at least as many as may overlap, but for ``local``, where nothing does.

    Parameters
    ----------
    most
        Most tokens of a batch.
    """
    own = tokens_of(host, source_T)
    if len(host.hosted) == host.ranks:
        return np.array_split(own, max(1, -(-source_T.size // most)))
    longest = int(np.bincount(source_T, minlength=host.ranks).max(initial=0))
    fewest = max(1, min(FEWEST_BATCHES, longest // LEAST_TOKENS))
    return np.array_split(own, max(fewest, -(-longest // most)))
