"""A world and its process groups: explicit handles, no default group of torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType

import torch
import torch.distributed as dist

COLLECTIVE_S = 1800.0
"""How long a collective waits for ranks that live but do not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All ranks of a run, seen from one of them.

    Attributes
    ----------
    rank, size
        This rank, and how many there are: as many as the plan has GPUs.
    device
        Where this rank's tensors live.
    group
        All ranks; to be named in every collective (``group=world.group``).
    store
        Keys and values that all ranks see.
    """

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup
    store: dist.Store
    interface: str = ""
    leave: Callable[[], None] = field(default=lambda: None, repr=False)

    def subgroup(self, ranks: Sequence[int], name: str) -> dist.ProcessGroup | None:
        """Return a group of some ranks, numbered in the order given; None outside it.

        Every one of ``ranks`` calls this, and no other needs to; ``name`` tells
        groups of a world apart.
        """
        if self.rank not in ranks:
            return None
        return process_group(
            dist.PrefixStore(f"group/{name}", self.store),
            list(ranks).index(self.rank),
            len(ranks),
            device=self.device,
            interface=self.interface,
        )

    def close(self) -> None:
        """Leave the world; collectives are over."""
        self.group.shutdown()
        self.leave()

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def process_group(
    store: dist.Store,
    rank: int,
    size: int,
    *,
    device: torch.device,
    interface: str = "",
    timeout_s: float = COLLECTIVE_S,
) -> dist.ProcessGroup:
    """Return a group that is registered nowhere: gloo on the CPU, NCCL on a GPU.

    Parameters
    ----------
    interface
        Address on which gloo listens; empty: what GLOO_SOCKET_IFNAME names, or
        the one the machine's name leads to.
    """
    group = dist.ProcessGroup(store, rank, size)
    if device.type == "cuda":
        kind = dist.ProcessGroup.BackendType.NCCL
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=timeout_s)
        backend = dist.ProcessGroupNCCL(store, rank, size, options)
    else:
        kind = dist.ProcessGroup.BackendType.GLOO
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=timeout_s)
        options._threads = 2
        options._devices = [
            dist.ProcessGroupGloo.create_device(hostname=interface)
            if interface
            else dist.ProcessGroupGloo.create_default_device()
        ]
        backend = dist.ProcessGroupGloo(store, rank, size, options)
    backend._set_sequence_number_for_group()
    group._set_default_backend(kind)
    group._register_backend(device, kind, backend)
    return group
