"""All ranks of a run meet: ``join(found, claim=…, gpus=…) -> World``."""

from datetime import timedelta

import torch
import torch.distributed as dist

from planner.executor.world.environment import HERE, Found
from planner.executor.world.groups import World, process_group


def join(
    found: Found,
    *,
    claim: str,
    gpus: int,
    timeout_s: float = 20.0,
    device: str = "cpu",
) -> World:
    """Meet the other ranks and return the world of all of them."""
    listener = None if found.rank else found.listener
    store = dist.TCPStore(
        found.address,
        found.port,
        None,
        found.rank == 0,
        timedelta(seconds=timeout_s),
        wait_for_workers=False,
        master_listen_fd=listener,
    )
    place = torch.device(device)
    group = process_group(
        dist.PrefixStore("group/world", store),
        found.rank,
        found.size,
        device=place,
        interface=HERE,
    )
    return World(
        rank=found.rank,
        size=found.size,
        device=place,
        group=group,
        store=dist.PrefixStore("run", store),
        interface=HERE,
    )
