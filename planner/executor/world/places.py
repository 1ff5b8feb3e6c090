"""The places of ranks on this machine: variables as torchrun would set them."""

import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from planner.executor.world.environment import HERE, JOB, LISTENER


@contextmanager
def places(size: int) -> Iterator[list[tuple[Mapping[str, str], Mapping[str, int]]]]:
    """Give the variables of each rank, and the descriptors it inherits by variable.

    Rank 0 inherits the socket it is to listen at, so that nobody can take its port
    before it comes.
    """
    with socket.create_server((HERE, 0), backlog=size) as listener:
        job = secrets.token_hex(8)
        shared = {
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": HERE,
            "MASTER_PORT": str(listener.getsockname()[1]),
            JOB: job,
        }
        yield [
            (
                {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                {} if rank else {LISTENER: listener.fileno()},
            )
            for rank in range(size)
        ]
