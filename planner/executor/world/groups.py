"""A world and its process groups: explicit handles, no default group of torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from planner.executor.world.member import Watch

COLLECTIVE_S = 1800.0
"""How long a collective waits for ranks that live but do not come."""
CONNECT_S = 20.0


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
    interface
        Address at which other ranks reach this one.
    watch
        What tells this rank that another is lost.
    """

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup
    store: dist.Store
    interface: str
    watch: Watch

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
        """Let go of everything; :func:`~planner.executor.world.watch.watched` does."""
        self.group.shutdown()
        self.watch.close()


def process_group(
    store: dist.Store,
    rank: int,
    size: int,
    *,
    device: torch.device,
    interface: str,
    connect_s: float = CONNECT_S,
) -> dist.ProcessGroup:
    """Return a group that is registered nowhere: gloo on the CPU, NCCL on a GPU.

    Parameters
    ----------
    interface
        Address at which gloo listens, unless GLOO_SOCKET_IFNAME names a card.
    connect_s
        How long ranks wait for each other here; in collectives it is COLLECTIVE_S.
    """
    group = dist.ProcessGroup(store, rank, size)
    if device.type == "cuda":
        # Picklable values travel over the GPU that is the current one.
        torch.cuda.set_device(device)
        kind = dist.ProcessGroup.BackendType.NCCL
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = timedelta(seconds=COLLECTIVE_S)
        backend = dist.ProcessGroupNCCL(store, rank, size, options)
    else:
        kind = dist.ProcessGroup.BackendType.GLOO
        options = dist.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=connect_s)
        options._threads = 2
        options._devices = [_gloo_device(interface)]
        backend = dist.ProcessGroupGloo(store, rank, size, options)
        backend._set_default_timeout(timedelta(seconds=COLLECTIVE_S))
    backend._set_sequence_number_for_group()
    group._set_default_backend(kind)
    group._register_backend(device, kind, backend)
    return group


def _gloo_device(interface: str) -> object:
    card = os.environ.get("GLOO_SOCKET_IFNAME")
    if card:
        return dist.ProcessGroupGloo.create_device(interface=card)
    return dist.ProcessGroupGloo.create_device(hostname=interface)
