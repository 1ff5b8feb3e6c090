"""Start all ranks on this machine: ``launch(program, arguments, size=…)``.

The ranks find torchrun's variables, with a job of their own. Their standard output and
error are this process's; an error comes here and is raised once. When this process is
gone, however, so are they.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from planner.executor.world.nursery import PRELOAD, Nursery
from planner.executor.world.outcomes import attempt, results
from planner.executor.world.parcels import pack
from planner.executor.world.places import places


def launch(
    program: Callable[..., Any], arguments: Sequence[Any] = (), *, size: int
) -> Any:
    """Run a program in ``size`` ranks, each a process; return rank 0's result.

    Parameters
    ----------
    program
        A function of a module that can be imported; called in every rank with the
        same arguments, which travel by value.

    Raises
    ------
    PlannerError
        The one that began it, with its exit code: as a rank raised it, or that a rank
        died (5), or failed by an error that is none of the planner's (1).
    """
    task = pack(partial(_once, program=program, arguments=tuple(arguments)))
    with Nursery((*PRELOAD, program.__module__)) as nursery, places(size) as ranks:
        children = [nursery.spawn(environ, inherit) for environ, inherit in ranks]
        try:
            for child in children:
                child.channel.send_bytes(task)
            channels = [child.channel for child in children]
            return results(channels, lambda rank: nursery.ended(children[rank]))[0]
        finally:
            nursery.kill(children)


def _once(
    channel: Connection, program: Callable[..., Any], arguments: Sequence[Any]
) -> int:
    return attempt(channel, int(os.environ["RANK"]), _of_rank_0, program, arguments)


def _of_rank_0(program: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Run the program; only rank 0's result is wanted."""
    result = program(*arguments)
    return result if os.environ["RANK"] == "0" else None
