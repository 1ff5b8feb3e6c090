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

from planner.errors import PlannerError
from planner.executor.world.groups import World
from planner.executor.world.outcomes import lost_touch


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
        yield
    except BaseException as error:
        watch = world.watch
        if lost_touch(error) and (end := watch.ended(watch.longest_s())) is not None:
            raise end.error() from None
        said = " ".join(str(error).split())
        known = isinstance(error, PlannerError)
        watch.fail(
            said if known else f"{type(error).__name__}: {said}",
            error.exit_code if isinstance(error, PlannerError) else 1,
        )
        raise
    else:
        world.watch.leave()
    finally:
        world.close()
