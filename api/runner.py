"""Runs solves outside the server: killable, limited in number and in time."""

import asyncio
import json
import logging
import math
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Protocol

from api.errors import Cause, FieldError, Problem, internal_error
from api.schemas import PlanRequest
from api.settings import Settings

WORKER = ("-P", "-m", "api.worker")
REFUSED = 10
_CODE_ROOT = str(Path(__file__).resolve().parent.parent)
log = logging.getLogger(__name__)


class Runner(Protocol):
    """Whoever turns a request into a manifest."""

    @property
    def solving(self) -> int:
        """Number of solves under way."""
        ...

    async def solve(self, request: PlanRequest) -> bytes:
        """Return the manifest as JSON; Problem where there is none."""
        ...


class Outcome(NamedTuple):
    """How a worker ended: exit status, answer, log."""

    status: int
    answer: bytes
    log: bytes


class ProcessRunner:
    """Every solve in a process of its own, in a session of its own.

    The process works in an empty folder, so that no name in a request can mean a
    file, and is killed with its whole session when it overruns.
    """

    def __init__(self, settings: Settings, worker: tuple[str, ...] = WORKER) -> None:
        self._settings, self._worker = settings, worker
        self._solving = 0

    @property
    def solving(self) -> int:
        """Number of solves under way."""
        return self._solving

    async def solve(self, request: PlanRequest) -> bytes:
        """Return the manifest as JSON.

        Raises
        ------
        Problem
            429 when all places are taken, 504 on overrun, the planner's own
            refusals with their status, 500 when the worker broke.
        """
        if self._solving >= self._settings.concurrent_solves:
            raise Problem(
                429,
                "too-many-solves",
                detail=f"{self._solving} solves are under way; try again later",
                headers={"Retry-After": str(math.ceil(self._settings.answer_seconds))},
            )
        self._solving += 1
        try:
            outcome = await self._run(
                request.model_dump_json(exclude_unset=True).encode()
            )
        finally:
            self._solving -= 1
        if outcome.status == 0:
            return outcome.answer
        if outcome.status == REFUSED:
            raise refusal(outcome.answer)
        log.error("worker ended with %d: %s", outcome.status, outcome.log.decode())
        raise internal_error()

    async def _run(self, payload: bytes) -> Outcome:
        """Run one worker to its end, or to the end of its time."""
        seconds = self._settings.answer_seconds
        with TemporaryDirectory(prefix="planner-solve-") as folder:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self._worker, str(math.ceil(seconds) + 1)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                cwd=folder,
                env=_environment(),
                start_new_session=True,
            )
            try:
                async with asyncio.timeout(seconds):
                    answer, errors = await process.communicate(payload)
            except TimeoutError:
                raise Problem(
                    504,
                    "limit",
                    detail=f"no plan within {seconds:g} s; lower options.time_limit "
                    "or send a smaller problem",
                ) from None
            finally:
                await _end(process)
        return Outcome(process.returncode or 0, answer, errors)


def refusal(answer: bytes) -> Problem:
    """Return the problem that a worker reported."""
    report = json.loads(answer)
    errors = [FieldError(**item) for item in report["errors"]]
    return Problem(
        report["status"],
        report["kind"],
        detail=report["detail"],
        errors=errors,
        causes=[Cause(**item) for item in report.get("causes", ())],
    )


async def _end(process: Process) -> None:
    """Kill what is left of a worker's session and collect it."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _environment() -> dict[str, str]:
    """Return the environment of a worker: ours, and where the code lies."""
    paths = [_CODE_ROOT, os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
