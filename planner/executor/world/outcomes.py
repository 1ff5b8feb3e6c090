"""What a rank's program came to, told to the process that started the ranks."""

import math
import signal
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from planner.errors import PlannerError, WorldError
from planner.executor.world.parcels import pack, unpack

GRACE_S = 2.0
"""How long a cause is waited for where ranks only say that others are lost."""
DRAIN_S = 0.05
"""How long other ranks may still speak once a cause is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A result, or the error that ended the program with its traceback.

    An ``echo`` is an error that only says that another rank is lost.
    """

    value: Any = None
    error: PlannerError | None = None
    trace: str = ""
    echo: bool = False


def attempt(
    channel: Connection, rank: int, function: Callable[..., Any], *arguments: Any
) -> int:
    """Run a function and send what came of it; return the exit code that fits."""
    try:
        outcome = Outcome(value=function(*arguments))
    except Exception as error:
        outcome = failure(rank, error)
    try:
        told = pack(outcome)
    except Exception as error:
        said = WorldError(f"rank {rank}: its result cannot travel: {error}", 1)
        told = pack(Outcome(error=said))
    channel.send_bytes(told)
    return outcome.error.exit_code if outcome.error else 0


def failure(rank: int, error: Exception) -> Outcome:
    """Return an error of a rank as it travels: errors of the planner as they are."""
    known = error if isinstance(error, PlannerError) else None
    return Outcome(
        error=known or WorldError(in_words(rank, error), exit_code=1),
        trace="".join(traceback.format_exception(error)),
        echo=isinstance(error, WorldError) or lost_touch(error),
    )


def lost_touch(error: BaseException) -> bool:
    """Tell whether an error comes of a collective that another rank left."""
    if not isinstance(error, RuntimeError | OSError):
        return False
    said = str(error).lower()
    return any(
        word in said for word in ("gloo", "nccl", "connection", "timed out", "timeout")
    )


def in_words(rank: int, error: BaseException) -> str:
    """Say in one line that a rank failed, and why."""
    said = " ".join(str(error).split())
    name = "" if isinstance(error, PlannerError) else f"{type(error).__name__}: "
    return f"rank {rank} failed: {name}{said}"


def results(
    channels: Sequence[Connection],
    ended: Callable[[int], int],
    grace_s: float = GRACE_S,
) -> list[Any]:
    """Return what all ranks came to, or raise the one error that explains the others.

    Parameters
    ----------
    ended
        Exit code of a rank whose channel closed, -N for signal N.

    Raises
    ------
    PlannerError
        As a rank raised it; ``WorldError`` where one raised anything else or died.
    """
    outcomes: dict[int, Outcome] = {}
    codes: dict[int, int] = {}
    rank_of = {channel: rank for rank, channel in enumerate(channels)}
    deadline = math.inf
    while rank_of:
        left = max(0.0, deadline - time.monotonic())
        ready = wait(list(rank_of), None if left == math.inf else left)
        for channel in ready:
            assert isinstance(channel, Connection)
            rank = rank_of.pop(channel)
            try:
                outcomes[rank] = unpack(channel.recv_bytes())
            except (EOFError, ConnectionError):
                codes[rank] = ended(rank)
        failed = [outcome for outcome in outcomes.values() if outcome.error]
        if codes or any(not outcome.echo for outcome in failed):
            grace_s = DRAIN_S
        if codes or failed:
            deadline = min(deadline, time.monotonic() + grace_s)
        if not ready:
            break
    _raise_cause(outcomes, codes)
    return [outcomes[rank].value for rank in range(len(channels))]


def _raise_cause(outcomes: Mapping[int, Outcome], codes: Mapping[int, int]) -> None:
    """Raise what began it: a rank that was killed, an error, a silent end, an echo."""
    failed = [outcomes[rank] for rank in sorted(outcomes) if outcomes[rank].error]
    failed.sort(key=lambda outcome: outcome.echo)
    silent = sorted(codes.items(), key=lambda item: (item[1] >= 0, item[0]))
    if silent and (silent[0][1] < 0 or not failed or failed[0].echo):
        rank, code = silent[0]
        raise WorldError(f"rank {rank} {end_in_words(code)}")
    if failed:
        error = failed[0].error
        assert error is not None
        raise error from _InRank(f"\n{failed[0].trace}")


class _InRank(Exception):
    """Shows where in a rank an error was raised, as the error's cause."""


def end_in_words(code: int) -> str:
    """Say how a process ended that said nothing."""
    if code >= 0:
        return f"ended without a result (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"was killed by signal {-code} ({name})"
