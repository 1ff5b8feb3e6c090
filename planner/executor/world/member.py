"""A rank's own connection to the hub: it shows its card, then lives with a watch."""

import math
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from planner.errors import PlannerError, WorldError
from planner.executor.world.cards import Card, End
from planner.executor.world.hub import LONGEST_STEP_S, TICK_S, Timing
from planner.executor.world.lines import Line
from planner.executor.world.outcomes import Outcome, lost_touch
from planner.executor.world.parcels import pack

TOLD_S = 1.0
"""How long a rank that is told to end waits to hear why."""
SIGNALS = 64


def introduce(line: Line, card: Card, deadline: float) -> dict[str, Any]:
    """Show a card on a connection that was greeted; return the hub's welcome.

    Raises
    ------
    PlannerError
        If the ranks cannot run together, or rank 0 is lost.
    """
    line.send(card=asdict(card))
    while (messages := waited_for(line, deadline)) is not None:
        for message in messages:
            if "welcome" in message:
                found: dict[str, Any] = message["welcome"]
                return found
            if "end" in message:
                raise End(**message["end"]).error()
            if "refused" in message:
                raise WorldError(
                    f"rank {card.rank} is not let in by rank 0: {message['refused']}; "
                    "is another run using MASTER_PORT?"
                )
        if not messages:
            line.send(failed="it has waited long enough for the others", code=5)
            raise WorldError("rank 0 has not answered in time: is it stopped?")
    raise WorldError("rank 0 ended before all ranks had come")


def waited_for(line: Line, deadline: float) -> list[dict[str, Any]] | None:
    """Return what comes until a time; nothing: it passed; None: the end."""
    while time.monotonic() < deadline:
        try:
            messages = line.receive()
        except ValueError:
            return None
        if messages != []:
            return messages
    return []


class Watch(threading.Thread):
    """Gives signs of life to the hub, and hears how the run ends.

    If a rank is lost while this one waits in a collective for it, the watch ends this
    process: nothing else could.

    Parameters
    ----------
    first
        Rank 0 in words.
    report
        Open descriptor of the channel to the process that started this one.
    hub
        Rank 0's other thread; it is to say its last word before the process ends.
    """

    def __init__(
        self,
        line: Line,
        timing: Timing,
        *,
        first: str,
        report: int | None = None,
        hub: threading.Thread | None = None,
    ) -> None:
        super().__init__(name="planner watch", daemon=True)
        self._line, self._timing, self._first = line, timing, first
        self._report, self._hub = report, hub
        self._over, self._heard = threading.Event(), threading.Event()
        self._end: End | None = None
        self._signals, self._wakeup = socket.socketpair()
        self._told_to_end = False

    def run(self) -> None:
        """Beat and listen until the run is over."""
        self._end = self._listened()
        # The hub waits for this: all has been read.
        self._line.close()
        self._over.set()
        grace_s = 0.0 if self._told_to_end else self._timing.grace_s
        if self._end is not None and not self._heard.wait(grace_s):
            self._die(self._end)

    @contextmanager
    def terminable(self) -> Iterator[None]:
        """Say why, when the launcher ends this process since another rank is lost.

        A handler of Python does not run while a collective waits; the byte that the
        interpreter writes for a signal is read by this thread at once.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._signals.setblocking(False)
        before = signal.signal(signal.SIGTERM, lambda number, frame: None)
        wakeup = signal.set_wakeup_fd(self._signals.fileno(), warn_on_full_buffer=False)
        try:
            yield
            # After an error the process ends anyway: a launcher that now ends all
            # ranks is not to cut off the message.
            signal.signal(signal.SIGTERM, before)
        finally:
            signal.set_wakeup_fd(wakeup)

    def ended(self, timeout_s: float | None = None) -> End | None:
        """Wait until the run is over; return why, None for done or not yet over."""
        if self._over.wait(timeout_s):
            self._heard.set()
        return self._end

    def leave(self) -> None:
        """Wait until all ranks are through.

        Raises
        ------
        PlannerError
            If one will not be.
        """
        self._line.send(bye=True)
        end = self.ended()
        if end is not None:
            raise end.error()

    def fail(self, why: str, code: int) -> None:
        """Tell all ranks that this one ends."""
        self._line.send(failed=why, code=code)
        # The answer says that it was heard.
        self.ended(self._timing.grace_s)

    def longest_s(self) -> float:
        """Return after how long a lost rank is surely known."""
        return self._timing.silent_s + 2 * self._timing.beat_s

    def close(self) -> None:
        """Let go; rank 0 does when all others have heard its last word."""
        self._heard.set()
        if self._hub is not None:
            self._hub.join(self._timing.grace_s)
        for end in (self._line.socket, self._signals, self._wakeup):
            end.close()

    def _listened(self) -> End | None:
        """Return how the run ended."""
        seen, beaten, silent_s = time.monotonic(), -math.inf, 0.0
        selector = selectors.DefaultSelector()
        selector.register(self._line.socket, selectors.EVENT_READ)
        selector.register(self._wakeup, selectors.EVENT_READ)
        told = math.inf
        while True:
            now = time.monotonic()
            if now > told + TOLD_S:
                return End(message="the launcher ended this rank (SIGTERM)", code=143)
            silent_s += min(now - seen, LONGEST_STEP_S)
            seen = now
            if silent_s > self._timing.silent_s:
                limit = self._timing.silent_s
                return End(
                    message=f"{self._first} did not answer for {limit:g} s: "
                    "stopped or hung"
                )
            if now - beaten >= self._timing.beat_s:
                beaten = now
                self._line.send(beat=True)
            try:
                ready = {key.fileobj for key, _ in selector.select(TICK_S)}
                if self._wakeup in ready and self._terminated():
                    self._told_to_end, told = True, now
                messages = self._line.receive() if self._line.socket in ready else []
            except ValueError:
                messages = None
            if messages is None:
                return End(message=f"{self._first} died without a word")
            for message in messages:
                silent_s = 0.0
                if "done" in message:
                    return None
                if "end" in message:
                    return End(**message["end"])

    def _terminated(self) -> bool:
        """Read which signals came; return whether one was SIGTERM."""
        return signal.SIGTERM in self._wakeup.recv(SIGNALS)

    def _die(self, end: End) -> NoReturn:
        """End a process whose main thread does not come back from a collective."""
        error = end.error()
        if self._hub is not None:
            self._hub.join(self._timing.grace_s)
        if self._report is not None:
            told = pack(Outcome(error=error, echo=True))
            Connection(self._report).send_bytes(told)
        else:
            sys.stderr.write(f"error: {error}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(error.exit_code)


@contextmanager
def telling(watch: Watch) -> Iterator[None]:
    """Tell all ranks of an error, or raise what ended another rank in its place.

    Raises
    ------
    PlannerError
        If a collective failed because another rank is lost.
    """
    try:
        yield
    except BaseException as error:
        if lost_touch(error) and (end := watch.ended(watch.longest_s())) is not None:
            raise end.error() from None
        said = " ".join(str(error).split())
        if isinstance(error, PlannerError):
            watch.fail(said, error.exit_code)
        else:
            interrupted = isinstance(error, KeyboardInterrupt)
            watch.fail(f"{type(error).__name__}: {said}", 130 if interrupted else 1)
        raise
