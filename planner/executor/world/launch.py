"""Start all ranks on this machine: ``launch(program, arguments, size=…)``.

The ranks find torchrun's variables, with a job of their own. Their standard output and
error are this process's; an error comes here and is raised once. When this process is
gone, however, so are they.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from planner.executor.world.nursery import PRELOAD, Nursery
from planner.executor.world.outcomes import attempt, results
from planner.executor.world.parcels import pack
from planner.executor.world.places import places


def launch(
    program: Callable[..., Any],
    arguments: Sequence[Any] = (),
    *,
    size: int,
    nursery: Nursery | None = None,
) -> Any:
    """Run a program in ``size`` ranks, each a process; return rank 0's result.

    Parameters
    ----------
    program
        A function of a module that can be imported; called in every rank with the
        same arguments, which travel by value.
    nursery
        Where the ranks come from; one of its own where there is none.

    Raises
    ------
    PlannerError
        The one that began it, with its exit code: as a rank raised it, or that a rank
        died (5), or failed by an error that is none of the planner's (1).
    """
    with ExitStack() as stack:
        if nursery is None:
            preload = (*PRELOAD, program.__module__)
            nursery = stack.enter_context(Nursery(preload))
        return _run(nursery, partial(_once, program, tuple(arguments)), size)


def _run(nursery: Nursery, task: Callable[[Connection], int], size: int) -> Any:
    parcel = pack(task)
    children = []
    try:
        with places(size) as ranks:
            for environ, inherit in ranks:
                children.append(nursery.spawn(environ, inherit))
                children[-1].channel.send_bytes(parcel)
        channels = [child.channel for child in children]
        return results(channels, lambda rank: nursery.ended(children[rank]))[0]
    finally:
        nursery.kill(children)


def _once(
    program: Callable[..., Any], arguments: Sequence[Any], channel: Connection
) -> int:
    return attempt(channel, int(os.environ["RANK"]), _of_rank_0, program, arguments)


def _of_rank_0(program: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Run the program; only rank 0's result is wanted."""
    result = program(*arguments)
    return result if os.environ["RANK"] == "0" else None
