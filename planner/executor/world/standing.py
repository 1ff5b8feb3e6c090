"""A world that stays: functions are sent to its ranks, again and again.

::

    with StandingWorld(4) as world:
        results = world.run(function, argument)    # function(world, argument) ran
                                                   # in each rank; [rank 0's, …]

Functions, arguments and results travel by value: a function is one of a module that
the ranks can import; arrays and tensors may be in all of them. What a rank raises is
raised here; the ranks are then started anew at the next call, since others may still
wait for the one that failed.
"""

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from planner.executor.world.environment import find
from planner.executor.world.groups import World
from planner.executor.world.join import join
from planner.executor.world.nursery import Child, Nursery
from planner.executor.world.outcomes import attempt, results
from planner.executor.world.parcels import pack, unpack
from planner.executor.world.places import places
from planner.executor.world.watch import watched


class StandingWorld:
    """Ranks of this machine that wait for work, each a process.

    Parameters
    ----------
    nursery
        Where ranks come from; worlds that share one start in milliseconds.
    """

    def __init__(
        self, size: int, *, nursery: Nursery | None = None, device: str = "cpu"
    ) -> None:
        self.size, self._device = size, device
        self._nursery, self._shared = nursery or Nursery(), nursery is not None
        self._children: list[Child] = []

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Run ``function(world, *arguments)`` in every rank; return all results.

        Raises
        ------
        WorldError
            If a rank died, or raised what cannot travel.
        """
        return self.run_each(function, [arguments] * self.size)

    def run_each(
        self, function: Callable[..., Any], arguments_R: Sequence[Sequence[Any]]
    ) -> list[Any]:
        """Do as :meth:`run`, with other arguments for every rank."""
        if not self._children:
            self._start()
        jobs = [pack((function, tuple(own))) for own in arguments_R]
        for child, job in zip(self._children, jobs, strict=True):
            child.channel.send_bytes(job)
        try:
            return results([c.channel for c in self._children], self._ended)
        except BaseException:
            self._stop()
            raise

    def close(self) -> None:
        """End the ranks."""
        self._stop()
        if not self._shared:
            self._nursery.close()

    def __enter__(self) -> "StandingWorld":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> None:
        program = pack(partial(attend, device=self._device))
        with places(self.size) as all_places:
            for environ, inherit in all_places:
                child = self._nursery.spawn(environ, inherit)
                child.channel.send_bytes(program)
                self._children.append(child)

    def _stop(self) -> None:
        self._nursery.kill(self._children)
        self._children = []

    def _ended(self, rank: int) -> int:
        return self._nursery.ended(self._children[rank])


def attend(channel: Connection, device: str) -> int:
    """Be a rank of a standing world: do what is sent until the channel closes."""
    found = find()
    assert found is not None
    world = join(found, claim="standing", gpus=found.size, device=device)
    with watched(world):
        while True:
            try:
                job = channel.recv_bytes()
            except EOFError:
                return 0
            attempt(channel, found.rank, _done, job, world)


def _done(job: bytes, world: World) -> Any:
    function, arguments = unpack(job)
    return function(world, *arguments)
