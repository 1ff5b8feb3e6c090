"""``with watched(world):`` what ends one rank ends all, with one message.

=============================  =======================================================
a rank                         every other rank
=============================  =======================================================
raises an error                ``rank 2 failed: <its message>``, and its exit code
dies (SIGKILL, ``os._exit``)   ``rank 2 (process 71 on node3) died without a word``
is stopped or hangs (SIGSTOP)  ``rank 2 (…) did not answer for 12 s: stopped or hung``
=============================  =======================================================

Where a collective raises because another rank left it, the message is raised in its
place; where it waits for a rank that never comes, the process is ended.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from planner.executor.world.groups import World
from planner.executor.world.member import telling


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Run collectives; leave when all ranks are through, and close the world.

    Raises
    ------
    PlannerError
        If another rank is lost: the same message in every rank, with the exit code of
        the error where a rank could still tell it, else 5.
    """
    try:
        with world.watch.terminable(), telling(world.watch):
            yield
        world.watch.leave()
    finally:
        world.close()
