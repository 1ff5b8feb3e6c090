"""Ranks that a launcher would start: processes with its variables, one outcome each."""

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from planner.executor.world.nursery import Child, Nursery
from planner.executor.world.outcomes import Outcome, attempt
from planner.executor.world.parcels import pack, unpack

LONGEST_S = 25.0


@dataclass(frozen=True)
class Told:
    """What a rank came to: a value, or an error's name and words; its exit code."""

    value: Any
    kind: str
    words: str
    code: int


def rank_program(channel: Connection, rank: int, options: dict[str, Any]) -> int:
    """Be a rank of :func:`programs.total`."""
    from tests.unit.executor.world.programs import total

    return attempt(channel, rank, partial(total, **options))


def torchrun_variables(size: int, port: int, job: str = "a") -> list[dict[str, str]]:
    """Return what ``torchrun`` sets, with a store that rank 0 serves itself."""
    return [
        {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TORCHELASTIC_RUN_ID": job,
        }
        for rank in range(size)
    ]


def free_port() -> int:
    """Return a port nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Ranks:
    """Ranks that were started and not yet heard."""

    def __init__(
        self, nursery: Nursery, variables: Sequence[Mapping[str, str]], **options: Any
    ) -> None:
        self._nursery = nursery
        self._children: list[Child] = []
        for number, given in enumerate(variables):
            child = nursery.spawn(given)
            task = partial(rank_program, rank=number, options=options)
            child.channel.send_bytes(pack(task))
            self._children.append(child)

    def told(self, but: Sequence[int] = ()) -> list[Told]:
        """Return what each rank came to, without some; kill all that are left."""
        deadline = time.monotonic() + LONGEST_S
        wanted = {
            child.channel: rank
            for rank, child in enumerate(self._children)
            if rank not in but
        }
        found: dict[int, Told] = {}
        try:
            while wanted:
                ready = wait(list(wanted), deadline - time.monotonic())
                assert ready, f"ranks {sorted(wanted.values())} hang"
                for channel in ready:
                    rank = wanted.pop(channel)  # type: ignore[arg-type]
                    found[rank] = self._told(rank)
            return [found[rank] for rank in sorted(found)]
        finally:
            self._nursery.kill(self._children)

    def resume(self, rank: int) -> Told:
        """Let a stopped rank go on and return what it came to."""
        os.kill(self._children[rank].pid, signal.SIGCONT)
        return self._told(rank)

    def _told(self, rank: int) -> Told:
        channel = self._children[rank].channel
        try:
            outcome: Outcome = unpack(channel.recv_bytes())
        except EOFError:
            outcome = Outcome()
        code = self._nursery.ended(self._children[rank])
        error = outcome.error
        return Told(
            value=outcome.value,
            kind=type(error).__name__ if error else "",
            words=str(error) if error else "",
            code=code,
        )


def computing(folder: Path, size: int) -> None:
    """Wait until all ranks of a run are past the handshake."""
    deadline = time.monotonic() + LONGEST_S
    while len(list(folder.iterdir())) < size:
        assert time.monotonic() < deadline, "ranks do not start"
        time.sleep(0.02)
