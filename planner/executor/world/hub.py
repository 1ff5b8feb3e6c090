"""Rank 0's side of all connections: ranks gather, are judged, and are watched.

Every rank keeps one connection to the hub, rank 0 too. A process that dies closes its
connection, whatever killed it: the hub knows at once. One that hangs or is stopped is
known by its silence. What ends one rank is told to all; that is the ``end`` message.

::

    rank             hub
         <-  {planner, job}        on being connected
    {card}   ->                    who I am, what I would run
         <-  {welcome} | {end} | {refused}
    {beat}  <->  {beat}            every ``beat_s`` seconds
    {failed} ->                    I end, and why
    {bye}    ->                    I am through
         <-  {done} | {end}        all are through, or why none will be
"""

import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from planner.executor.world.cards import Card, End, judge, named
from planner.executor.world.environment import HERE, is_loopback
from planner.executor.world.lines import Line

PROTOCOL = "world/1"
LINGER_S = 2.0
"""How long ranks may take to read how the run ended."""
TICK_S = 0.25
LONGEST_STEP_S = 1.0
"""A machine that slept wakes up with all its ranks silent: time that this process did
not see is not held against others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds that ranks have.

    Attributes
    ----------
    gather_s
        To come together.
    beat_s, silent_s
        Between signs of life; without one before a rank counts as lost.
    grace_s
        For a rank that waits in a collective to come out of it, once a rank is lost.
    """

    gather_s: float = 20.0
    beat_s: float = 1.0
    silent_s: float = 12.0
    grace_s: float = 3.0


class _Member:
    """A connection, and the rank at its other end once it has shown its card."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.card: Card | None = None
        self.silent_s = 0.0
        self.left = self.closed = False


class Hub(threading.Thread):
    """Gathers ``size`` ranks at a socket and watches them until all are through.

    Parameters
    ----------
    welcome
        What every rank is told when all have come.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        job: str,
        size: int,
        timing: Timing,
        welcome: dict[str, object],
    ) -> None:
        super().__init__(name="planner hub", daemon=True)
        self._listener, self._job, self._size = listener, job, size
        self._timing, self._welcome = timing, welcome
        self._members: dict[int, _Member] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)

    def adopt(self, connection: socket.socket) -> None:
        """Take a connection as if it had come in: that of rank 0 itself."""
        member = _Member(Line(connection))
        self._selector.register(connection, selectors.EVENT_READ, member)
        member.line.send(planner=PROTOCOL, job=self._job)

    def run(self) -> None:
        """Gather, watch, and tell all how it ended."""
        try:
            end = self._gather() or self._watch()
            self._tell(end)
        finally:
            for key in list(self._selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
            self._selector.close()

    def _gather(self) -> End | None:
        deadline = time.monotonic() + self._timing.gather_s
        while True:
            for member, message in self._events():
                if message is None or "failed" in message:
                    if member.card is not None:
                        return self._lost(member, message)
                elif "card" in message:
                    self._admit(member, message["card"])
            cards = self._cards()
            expected = max([self._size, *(card.size for card in cards.values())])
            missing = sorted(set(range(expected)) - set(cards))
            if not missing:
                return judge(cards)
            if time.monotonic() > deadline:
                return (judge(cards) if 0 in cards else None) or End(
                    message=f"{named(missing)} of {expected} did not come within "
                    f"{self._timing.gather_s:g} s: start all ranks together, or set "
                    "PLANNER_WORLD_WAIT to more seconds"
                )

    def _watch(self) -> End | None:
        self._send_all(welcome=self._welcomed())
        seen = beaten = time.monotonic()
        while not all(member.left for member in self._members.values()):
            for member, message in self._events():
                member.silent_s = 0.0
                if message is None or "failed" in message:
                    if member.card is not None:
                        return self._lost(member, message)
                elif "card" in message:
                    member.line.send(refused="this run has all its ranks")
                elif "bye" in message:
                    member.left = True
            now = time.monotonic()
            silent = self._silent(min(now - seen, LONGEST_STEP_S))
            seen = now
            if silent:
                return silent
            if now - beaten >= self._timing.beat_s:
                beaten = now
                self._send_all(beat=True)
        return None

    def _silent(self, step_s: float) -> End | None:
        for member in self._members.values():
            member.silent_s += step_s
        limit = self._timing.silent_s
        cards = [
            member.card
            for member in self._members.values()
            if member.card is not None and member.silent_s > limit
        ]
        if not cards:
            return None
        places = ", ".join(card.place for card in cards)
        return End(message=f"{places} did not answer for {limit:g} s: stopped or hung")

    def _lost(self, member: _Member, message: dict[str, Any] | None) -> End:
        assert member.card is not None
        if message is None:
            return End(message=f"{member.card.place} died without a word")
        return End(
            message=f"rank {member.card.rank} failed: {message['failed']}",
            code=int(message["code"]),
        )

    def _tell(self, end: End | None) -> None:
        """Tell all how it ended, and wait until they have read it."""
        if end is None:
            self._send_all(done=True)
        else:
            self._send_all(end=asdict(end))
        for member in self._members.values():
            _half_close(member.line.socket)
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline:
            if all(member.closed for member in self._members.values()):
                return
            for _ in self._events():
                pass

    def _admit(self, member: _Member, shown: dict[str, Any]) -> None:
        try:
            card = Card(**shown)
        except TypeError:
            member.line.send(refused="another version of planner has this address")
            return
        if card.job != self._job:
            member.line.send(refused="another run has this address")
        elif card.rank in self._members:
            other = self._members[card.rank].card
            member.line.send(refused=f"{other.place if other else 'one'} has its place")
        else:
            member.card, self._members[card.rank] = card, member

    def _cards(self) -> dict[int, Card]:
        return {
            rank: member.card
            for rank, member in self._members.items()
            if member.card is not None
        }

    def _welcomed(self) -> dict[str, object]:
        """Add where other ranks see rank 0: at the loopback, if all are there."""
        addresses = [
            member.line.socket.getsockname()[0]
            for rank, member in self._members.items()
            if rank
        ]
        away = [address for address in addresses if not is_loopback(address)]
        return {
            **self._welcome,
            "first": self._cards()[0].place,
            "address": away[0] if away else HERE,
        }

    def _send_all(self, **message: object) -> None:
        for member in self._members.values():
            member.line.send(**message)

    def _events(self) -> Iterator[tuple[_Member, dict[str, Any] | None]]:
        """Yield messages that came, None where a connection ended."""
        for key, _ in self._selector.select(TICK_S):
            if key.data is None:
                with suppress(OSError):
                    self.adopt(self._listener.accept()[0])
                continue
            member: _Member = key.data
            try:
                messages = member.line.receive()
            except ValueError:
                messages = None
            for message in messages or []:
                yield member, message
            if messages is None:
                self._selector.unregister(member.line.socket)
                member.line.close()
                member.closed = True
                yield member, None


def _half_close(connection: socket.socket) -> None:
    """Send no more; what was sent still arrives when this process ends."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
