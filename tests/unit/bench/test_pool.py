"""Workers answer, die and hang; the run goes on and says what happened."""

import sys
import time
from pathlib import Path

import pytest

from planner.bench.pool import Worker, with_workers

ECHO = """
import json, sys
for line in sys.stdin:
    job = json.loads(line)
    if job.get("die"):
        print("last words", file=sys.stderr)
        sys.exit(3)
    if job.get("hang"):
        import time
        time.sleep(60)
    print(json.dumps({"outcome": "plan", "job": job}), flush=True)
"""


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    """Return the command of a worker that echoes, dies or hangs."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO, encoding="utf-8")
    return (sys.executable, "-P", str(script))


def test_a_worker_answers_job_after_job(command: tuple[str, ...]) -> None:
    """Law: one process, many jobs."""
    worker = Worker(command, Path.cwd())
    assert [worker.ask({"n": n}, 30)["job"]["n"] for n in range(3)] == [0, 1, 2]
    worker.close()


def test_a_dead_worker_is_replaced(command: tuple[str, ...]) -> None:
    """Law: a crash is an outcome with the last words; the next job has a worker."""
    worker = Worker(command, Path.cwd())
    reply = worker.ask({"die": True}, 30)
    assert reply["outcome"] == "crashed"
    assert "last words" in reply["message"]
    assert worker.ask({"n": 1}, 30)["outcome"] == "plan"
    worker.close()


def test_a_hanging_worker_is_stopped(command: tuple[str, ...]) -> None:
    """Law: the limit holds, and the next job has a worker."""
    worker = Worker(command, Path.cwd())
    begun = time.monotonic()
    assert worker.ask({"hang": True}, 0.5)["outcome"] == "timeout"
    assert time.monotonic() - begun < 30
    assert worker.ask({"n": 1}, 30)["outcome"] == "plan"
    worker.close()


def test_results_come_in_the_order_of_the_items(command: tuple[str, ...]) -> None:
    """Law: whoever is free takes the next one; the order stays."""
    found = with_workers(
        range(5),
        lambda n, worker: worker.ask({"n": n}, 30)["job"]["n"],
        workers=2,
        command=command,
        root=Path.cwd(),
    )
    assert found == [0, 1, 2, 3, 4]
