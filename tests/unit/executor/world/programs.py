"""What tests run as ranks: programs with their faults, started by any launcher.

``python -m tests.unit.executor.world.programs NAME [key=value …]`` is a rank.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from planner.errors import PlannerError, ReplayMismatch
from planner.executor.world.environment import find
from planner.executor.world.hub import Timing
from planner.executor.world.join import join
from planner.executor.world.watch import watched

QUICK = Timing(beat_s=0.2, silent_s=10.0, grace_s=0.7)


def total(
    claims: str = "same",
    gpus: int = 0,
    rounds: int = 3,
    timeout_s: float = 20.0,
    silent_s: float = QUICK.silent_s,
    fault: str = "",
    of: int = -1,
    folder: str = "",
) -> int:
    """Sum ones over all ranks, round by round; rank ``of`` has a fault midway.

    Parameters
    ----------
    claims
        What ranks claim, one word per rank, or one for all.
    folder
        Where a rank writes its process id once it computes.
    """
    found = find()
    assert found is not None
    words = claims.split(",")
    claim = words[found.rank] if len(words) > 1 else words[0]
    world = join(
        found,
        claim=claim,
        gpus=gpus or found.size,
        timeout_s=timeout_s,
        timing=replace(QUICK, silent_s=silent_s),
    )
    ones = torch.ones(1)
    with watched(world):
        if folder:
            Path(folder, str(world.rank)).write_text(str(os.getpid()))
        for number in range(rounds):
            if number == 2 and world.rank == of:
                _go_wrong(fault)
            dist.all_reduce(ones.fill_(1), group=world.group)
            time.sleep(0.01)
    return int(ones)


def total_of(options: dict[str, Any]) -> int:
    """Run :func:`total` with options by name."""
    return total(**options)


def twice() -> list[int]:
    """Join, leave and join again."""
    return [total(), total()]


def _go_wrong(fault: str) -> None:
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if fault == "exit":
        os._exit(0)
    if fault == "bug":
        raise KeyError("lost")
    if fault == "mismatch":
        raise ReplayMismatch(["layer 3 differs", "layer 4 differs"])


def main() -> None:
    """Be a rank: one line with the result, or one with the error."""
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    numbers = {
        "gpus": int,
        "rounds": int,
        "timeout_s": float,
        "of": int,
        "silent_s": float,
    }
    try:
        result = total_of({k: numbers.get(k, str)(v) for k, v in given.items()})
    except PlannerError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"total {result}\n")


if __name__ == "__main__":
    main()
