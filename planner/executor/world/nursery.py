"""A process that has torch in memory and gives birth to ranks.

Importing torch takes seconds of a core, a fork of a process that has it some
milliseconds. The parent talks to it over a socket: it asks for a rank, gets its
process id, and is told how it ended. When the parent is gone, so are all ranks.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from types import TracebackType

from planner.errors import WorldError
from planner.executor.world.environment import REPORT
from planner.executor.world.outcomes import failure
from planner.executor.world.parcels import pack, unpack

LINE = 1 << 16
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from planner.executor.world.nursery import serve; "
    "serve(int(sys.argv[2]), sys.argv[3:])"
)
PRELOAD = ("torch.distributed", "planner.executor.world.join")
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
"""Warnings of torch's sockets come beside our message; threads that wait spin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A rank's process, and the pipe to it."""

    pid: int
    channel: Connection


class Nursery:
    """Starts ranks on this machine, quickly, as often as asked.

    Parameters
    ----------
    preload
        Modules that every rank finds imported.
    """

    def __init__(self, preload: Sequence[str] = PRELOAD) -> None:
        self._codes: dict[int, int] = {}
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *("-c", START, json.dumps(sys.path), str(theirs.fileno())),
                    *preload,
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=QUIET | os.environ,
                # An interrupt from the keyboard is the parent's to handle.
                start_new_session=True,
            )

    def spawn(
        self, environ: Mapping[str, str], inherit: Mapping[str, int] | None = None
    ) -> Child:
        """Start a rank, which then waits for its program on the channel.

        Parameters
        ----------
        inherit
            Open descriptors to pass on, by the variable that will name them.
        """
        ours, theirs = socket.socketpair()
        names = list(inherit or {})
        with theirs:
            self._send(
                {"environ": dict(environ), "inherit": names},
                [theirs.fileno(), *(inherit or {}).values()],
            )
        return Child(pid=self._receive()["pid"], channel=Connection(ours.detach()))

    def ended(self, child: Child) -> int:
        """Wait for a rank that ends; return its exit code, -N for signal N."""
        if child.pid not in self._codes:
            self._send({"wait": child.pid}, [])
            self._codes[child.pid] = self._receive()["code"]
        return self._codes[child.pid]

    def kill(self, children: Sequence[Child]) -> None:
        """End ranks at once and take their remains."""
        for child in children:
            if child.pid not in self._codes:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        for child in children:
            with suppress(WorldError):
                self.ended(child)
            child.channel.close()

    def close(self) -> None:
        """End the nursery and all ranks that it started."""
        self._socket.close()
        self._process.wait()

    def __enter__(self) -> "Nursery":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _send(self, message: Mapping[str, object], descriptors: list[int]) -> None:
        with suppress(BrokenPipeError):
            socket.send_fds(self._socket, [json.dumps(message).encode()], descriptors)

    def _receive(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(self._socket.recv(LINE) or "{}")
        if not found:
            raise WorldError(
                "the process that starts the ranks ended "
                f"(exit code {self._process.wait()}): is torch installed?"
            )
        return found


def serve(descriptor: int, preload: Sequence[str]) -> None:
    """Be the nursery: import modules, then fork as asked until the parent is gone."""
    for name in preload:
        import_module(name)
    control = socket.socket(fileno=descriptor)
    alive: set[int] = set()
    while True:
        text, passed, _, _ = socket.recv_fds(control, LINE, 8)
        if not text:
            break
        message = json.loads(text)
        if "wait" in message:
            status = os.waitpid(message["wait"], 0)[1]
            alive.discard(message["wait"])
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if not pid:
                control.close()
                _become(message, passed)
            alive.add(pid)
            answer = {"pid": pid}
            for number in passed:
                os.close(number)
        with suppress(BrokenPipeError):
            control.send(json.dumps(answer).encode())
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _become(message: Mapping[str, object], passed: list[int]) -> None:
    """Be a rank: run the program that comes over the channel, then end."""
    code = 1
    channel = Connection(passed[0])
    environ, inherit = message["environ"], message["inherit"]
    assert isinstance(environ, dict) and isinstance(inherit, list)
    try:
        os.environ.update(environ, **{REPORT: str(passed[0])})
        os.environ.update(zip(inherit, map(str, passed[1:]), strict=True))
        program: Callable[[Connection], int] = unpack(channel.recv_bytes())
        code = program(channel)
    except Exception as error:
        with suppress(OSError):
            channel.send_bytes(pack(failure(int(environ["RANK"]), error)))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Never back into the nursery's own loop.
        os._exit(code)
