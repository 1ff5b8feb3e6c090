"""How long ranks take to end, each with one message, when something fails.

    python -m benchmarks.failures [--ranks 4] [--only WORD] [--starts]

Every row starts ranks as processes of this machine with torchrun's variables and the
limits that users have (20 s to come together, 12 s of silence, 3 s to leave a
collective). Faults of a run strike in the midst of a loop of collectives. Seconds count
from the fault, or from when the last rank called ``join``, until the last rank's
process has ended; a rank that is stopped is not waited for. ``--starts`` measures how
long ``launch`` takes to start and end ranks that meet, beside ``torchrun``.
"""

import argparse
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from planner.executor.world.environment import find
from planner.executor.world.launch import launch
from planner.executor.world.nursery import Child, Nursery
from planner.executor.world.outcomes import Outcome, attempt
from planner.executor.world.parcels import pack, unpack

ROUNDS_BEFORE = 20


@dataclass(frozen=True)
class Fault:
    """What goes wrong: at which rank, in its run or in how it was started."""

    name: str
    what: str = ""
    of: int = -1
    claim: str = ""
    gpus: int = 0
    absent: int = -1
    port: str = "free"


def faults(ranks: int) -> list[Fault]:
    """Return the faults of the table."""
    last = ranks - 1
    return [
        Fault("a rank is killed (SIGKILL)", what="kill", of=last),
        Fault("rank 0 is killed (SIGKILL)", what="kill", of=0),
        Fault("a rank exits without a word", what="exit", of=last),
        Fault("a rank raises an error", what="raise", of=last),
        Fault("a rank is stopped (SIGSTOP)", what="stop", of=last),
        Fault("rank 0 is stopped (SIGSTOP)", what="stop", of=0),
        Fault("a rank has another manifest", claim="other", of=last),
        Fault("world size is not the plan's", gpus=2 * ranks),
        Fault("another program has the port", port="program"),
        Fault("another run has the port", port="run"),
        Fault("a rank does not come", absent=last),
        Fault("rank 0 does not come", absent=0),
    ]


def rank(channel: Connection, number: int, folder: str, fault: Fault) -> int:
    """Be a rank that suffers a fault."""
    return attempt(channel, number, _suffer, number, Path(folder), fault)


def _suffer(number: int, folder: Path, fault: Fault) -> None:
    import torch
    import torch.distributed as dist

    from planner.executor.world.join import join
    from planner.executor.world.watch import watched

    found = find()
    assert found is not None
    (folder / f"joins{number}").touch()
    world = join(
        found,
        claim=fault.claim if number == fault.of and fault.claim else "same",
        gpus=fault.gpus or found.size,
    )
    with watched(world):
        for turn in range(10**9):
            dist.all_reduce(torch.ones(1), group=world.group)
            time.sleep(0.01)
            if turn == ROUNDS_BEFORE:
                (folder / f"runs{number}").touch()
                if number == fault.of:
                    _go_wrong(fault.what)


def _go_wrong(what: str) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(0)
    if what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if what == "raise":
        raise ValueError("something went wrong")


def measure(nursery: Nursery, fault: Fault, ranks: int) -> None:
    """Print a row of the table: seconds, exit codes, messages."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        others: list[Child] = []
        if fault.port == "program":
            held.listen()
        else:
            held.close()
        if fault.port == "run":
            place = tempfile.mkdtemp(dir=folder)
            others = started(nursery, Fault(""), ranks, port, place, "other")
            while len(list(Path(place).glob("runs*"))) < ranks:
                time.sleep(0.05)
        children = started(nursery, fault, ranks, port, folder, "this")
        ends, told = heard(nursery, fault, children)
        key = f"runs{fault.of}" if fault.what else "joins*"
        begun = max(path.stat().st_mtime for path in Path(folder).glob(key))
        nursery.kill([*children, *others])
    codes = ", ".join(str(code) for code in sorted({code for code, _ in told}))
    words = " / ".join(sorted({text for _, text in told if text}))
    print(f"| {fault.name} | {max(ends) - begun:.1f} | {codes} | {words} |", flush=True)


def started(
    nursery: Nursery, fault: Fault, ranks: int, port: int, folder: str, job: str
) -> list[Child]:
    """Start all ranks but the absent one."""
    program = import_module("benchmarks.failures").rank
    children = []
    for number in range(ranks):
        if number == fault.absent:
            continue
        child = nursery.spawn(
            {
                "RANK": str(number),
                "WORLD_SIZE": str(ranks),
                "LOCAL_RANK": str(number),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "TORCHELASTIC_RUN_ID": job,
            }
        )
        task = partial(program, number=number, folder=folder, fault=_own(fault))
        child.channel.send_bytes(pack(task))
        children.append(child)
    return children


def _own(fault: Fault) -> Any:
    """Return a fault as an object of the module that ranks import."""
    return import_module("benchmarks.failures").Fault(*vars(fault).values())


def heard(
    nursery: Nursery, fault: Fault, children: Sequence[Child]
) -> tuple[list[float], list[tuple[int, str]]]:
    """Return when each rank but the one with the fault ended, and how."""
    victim = fault.of if fault.what else -1
    waiting = {
        child.channel: child
        for number, child in enumerate(children)
        if number != victim
    }
    ends, told = [], []
    while waiting:
        for channel in wait(list(waiting), 60):
            child = waiting.pop(channel)  # type: ignore[arg-type]
            try:
                outcome: Outcome = unpack(child.channel.recv_bytes())
            except EOFError:
                outcome = Outcome()
            told.append((nursery.ended(child), str(outcome.error or "")))
            ends.append(time.time())
    return ends, told


def meet() -> int:
    """Join a world and leave it."""
    from planner.executor.world.join import join
    from planner.executor.world.watch import watched

    found = find()
    assert found is not None
    with watched(join(found, claim="same", gpus=found.size)) as _:
        return found.size


def starts() -> None:
    """Print how long ranks take to start, meet and end."""
    program = import_module("benchmarks.failures").meet
    print(
        "| ranks | `launch` | of the processor | torch at hand | `torchrun` | of it |"
    )
    print("|---|---|---|---|---|---|")
    with Nursery() as nursery:
        launch(program, size=1, nursery=nursery)
        for ranks in (2, 4, 8):
            own = timed(lambda n: launch(program, size=n), ranks)
            warm = timed(lambda n: launch(program, size=n, nursery=nursery), ranks)
            run = timed(torchrun, ranks)
            row = [ranks, *own, warm[0], *run]
            shown = [f"{x:.2f} s" if isinstance(x, float) else str(x) for x in row]
            print(f"| {' | '.join(shown)} |", flush=True)


def timed(start: Any, ranks: int) -> tuple[float, float]:
    """Return seconds of the clock and of the processor, those of all processes."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    start(ranks)
    after, ended = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return ended - begun, spent


def torchrun(ranks: int) -> None:
    """Start ranks that meet by torchrun."""
    run = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    subprocess.run(
        [*run, "-m", "benchmarks.failures", "--meet"], check=True, capture_output=True
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--only", default="")
    parser.add_argument("--starts", action="store_true")
    parser.add_argument("--meet", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.meet:
        meet()
    elif given.starts:
        starts()
    else:
        print(f"load average {os.getloadavg()[0]:.1f}, {given.ranks} ranks\n")
        print("| fault | s | exit codes | messages |\n|---|---|---|---|")
        with Nursery() as nursery:
            for fault in faults(given.ranks):
                if given.only in fault.name:
                    measure(nursery, fault, given.ranks)


if __name__ == "__main__":
    main()
