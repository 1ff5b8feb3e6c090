"""What tests send to ranks: functions that a rank's process can import."""

import os
import signal
import sys
from typing import Any

import torch
import torch.distributed as dist

from planner.errors import TraceError, VerificationError
from planner.executor.world.groups import World


def who(world: World) -> tuple[int, int]:
    """Return rank and size."""
    return world.rank, world.size


def turned(world: World, rows_S: list[list[int]]) -> list[int]:
    """Send row s to rank s, uneven, and return what arrived."""
    sends = [len(row) for row in rows_S]
    counts = torch.empty(world.size, dtype=torch.int64)
    dist.all_to_all_single(counts, torch.tensor(sends), group=world.group)
    arrived = torch.empty(int(counts.sum()), dtype=torch.int64)
    dist.all_to_all_single(
        arrived,
        torch.tensor([row for rows in rows_S for row in rows], dtype=torch.int64),
        counts.tolist(),
        sends,
        group=world.group,
    )
    found: list[int] = arrived.tolist()
    return found


def sum_of(world: World, value: int) -> int:
    """Return the sum over all ranks."""
    total = torch.tensor([value])
    dist.all_reduce(total, group=world.group)
    return int(total)


def sum_within(world: World, ranks: list[int]) -> int | None:
    """Return the sum of the numbers of some ranks, in a group of their own."""
    group = world.subgroup(ranks, "some")
    if group is None:
        return None
    total = torch.tensor([world.rank])
    dist.all_reduce(total, group=group)
    return int(total)


def fail(world: World, rank: int, how: str) -> Any:
    """Let one rank fail while the others wait for it in a collective."""
    if world.rank == rank:
        if how == "planner":
            raise TraceError("must be known", where="column x", value=3)
        if how == "findings":
            raise VerificationError(["first", "second"])
        if how == "bug":
            raise ValueError("of rank\n its own")
        if how == "exit":
            os._exit(7)
        if how == "system exit":
            sys.exit(9)
        os.kill(os.getpid(), signal.SIGKILL)
    return sum_of(world, 1)


def doubled(world: World, given: dict[str, Any]) -> dict[str, Any]:
    """Return tensors and arrays, twice their values."""
    return {name: 2 * value for name, value in given.items()}


def no_result(world: World) -> Any:
    """Return what no pickle can carry."""
    return lambda: world
