"""The process runner: answers, refusals, crashes, overruns, places."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.errors import Problem
from api.runner import ProcessRunner
from api.schemas import PlanRequest
from api.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
REQUEST = PlanRequest(topology={"nodes": []})
ECHO = "import sys; sys.stdout.write(sys.stdin.read())"
REFUSE = (
    "import sys; sys.stdin.read(); "
    'print(\'{"status": 409, "kind": "infeasible", "detail": "too small", '
    '"errors": [{"pointer": "/topology", "detail": "memory"}]}\'); sys.exit(10)'
)
CRASH = "import sys; sys.stdin.read(); raise RuntimeError('secret of the house')"
ABORT = "import os, sys; sys.stdin.read(); os.abort()"
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({record!r}).write_text(f"{{os.getpid()}} {{child.pid}} {{os.getcwd()}}")
time.sleep(60)
"""


def runner_of(code: str, **settings: float) -> ProcessRunner:
    """Return a runner whose worker runs ``code``."""
    limits = {"time_limit_default": 0.1, "time_limit_max": 0.1, **settings}
    return ProcessRunner(Settings(**limits), worker=("-c", code))


def solve(runner: ProcessRunner) -> bytes:
    return asyncio.run(runner.solve(REQUEST))


def refused(runner: ProcessRunner) -> Problem:
    with pytest.raises(Problem) as caught:
        solve(runner)
    assert runner.solving == 0
    return caught.value


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_worker_receives_the_request_and_its_answer_is_returned() -> None:
    """Law: what the worker writes is what the client gets."""
    assert solve(runner_of(ECHO)) == b'{"topology":{"nodes":[]}}'


def test_a_refusal_of_the_planner_keeps_its_status() -> None:
    """Law: the planner's own errors reach the client with status and place."""
    problem = refused(runner_of(REFUSE))
    assert (problem.status, problem.kind) == (409, "infeasible")
    assert problem.errors[0].pointer == "/topology"


@pytest.mark.parametrize("code", [CRASH, ABORT], ids=["exception", "abort"])
def test_a_crash_is_a_500_that_tells_nothing(code: str) -> None:
    """Law: a native abort or an exception ends one solve, not the service."""
    problem = refused(runner_of(code))
    assert problem.status == 500
    assert "secret" not in str(problem)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_an_overrun_is_a_504_and_leaves_no_process(tmp_path: Path) -> None:
    """Law: a worker that ignores signals dies with its children and its folder."""
    record = tmp_path / "record"
    code = STUBBORN.format(record=str(record))
    started = time.monotonic()
    assert refused(runner_of(code, answer_seconds=1.0)).status == 504
    assert time.monotonic() - started < 5
    worker, child, folder = record.read_text().split()
    deadline = time.monotonic() + 5
    while is_running(int(child)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(int(worker))
    assert not is_running(int(child))
    assert not Path(folder).exists()


def test_no_more_solves_at_once_than_allowed() -> None:
    """Law: one too many gets 429 with Retry-After; a free place is used again."""
    slow = "import sys, time; sys.stdin.read(); time.sleep(0.5); print('{}')"
    runner = runner_of(slow, concurrent_solves=2)

    async def three() -> list[bytes | BaseException]:
        tasks = [runner.solve(REQUEST) for _ in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    *served, turned_away = asyncio.run(three())
    assert served == [b"{}\n", b"{}\n"]
    assert isinstance(turned_away, Problem)
    assert turned_away.status == 429
    assert int(turned_away.headers["Retry-After"]) > 0
    assert solve(runner) == b"{}\n"


def test_a_cancelled_request_ends_its_worker(tmp_path: Path) -> None:
    """Law: when the server stops waiting, the worker is gone too."""
    record = tmp_path / "record"
    runner = runner_of(STUBBORN.format(record=str(record)))

    async def cancel() -> None:
        task = asyncio.create_task(runner.solve(REQUEST))
        while not record.exists():
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert runner.solving == 0
    assert not is_running(int(record.read_text().split()[0]))


def test_the_worker_starts_in_an_empty_folder() -> None:
    """Law: no name in a request can mean a file beside the worker."""
    code = "import os, sys; sys.stdin.read(); print(os.listdir())"
    assert solve(runner_of(code)) == b"[]\n"


def test_a_worker_without_a_server_ends_by_itself() -> None:
    """Law: a killed server leaves no worker behind for longer than its time."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "api.worker", "1"],
        stdin=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert worker.wait(timeout=30) == -signal.SIGALRM
    finally:
        worker.kill()
        worker.communicate()
