"""Workers answer, die and hang; the run goes on and says what happened."""

import sys
import time
from pathlib import Path

import pytest

from planner.bench.pool import Worker, with_workers, worker_command

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


FAKE = {
    "__init__.py": "",
    "errors.py": "class PlannerError(Exception): pass\n"
    "class InputError(PlannerError): pass\n",
    "options.py": "class SolveOptions:\n"
    "    def __init__(self, traffic): self.traffic = traffic\n",
    "manifest.py": "def write_manifest(manifest, path): path.write_text(manifest)\n",
    "pipeline.py": "from planner.errors import InputError, PlannerError\n"
    "def solve(topology, *, model, trace, options, base):\n"
    "    print('solvers print')\n"
    "    if topology == 'bad': raise InputError('no such cluster')\n"
    "    if topology == 'worse': raise ZeroDivisionError\n"
    "    return options.traffic\n"
    "def verify(path): raise PlannerError('never verified')\n",
}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """Return a folder with another planner: a facade that verifies nothing."""
    package = tmp_path / "planner"
    package.mkdir()
    for name, text in FAKE.items():
        (package / name).write_text(text, encoding="utf-8")
    return tmp_path


def job(folder: Path, topology: str, **options: object) -> dict[str, object]:
    """A job for the real worker."""
    return {
        "topology": topology,
        "model": None,
        "trace": None,
        "options": options,
        "manifest": str(folder / "plan.json"),
    }


def test_the_planner_of_the_root_is_the_one_measured(elsewhere: Path) -> None:
    """Law: the worker takes the planner it is given, whatever is installed here."""
    worker = Worker(worker_command(), elsewhere)
    worker.warm_up()
    reply = worker.ask(job(elsewhere, "toy-2x2", traffic="copies"), 60)
    assert reply["outcome"] == "plan"
    assert reply["findings"] == ["never verified"]
    assert (elsewhere / "plan.json").read_text() == "copies"
    worker.close()


def test_every_end_of_a_solve_is_an_outcome(elsewhere: Path) -> None:
    """Law: bad input, an option it does not know and a bug are told apart."""
    worker = Worker(worker_command(), elsewhere)
    bad = worker.ask(job(elsewhere, "bad", traffic="copies"), 60)
    assert (bad["outcome"], bad["message"]) == ("invalid", "no such cluster")
    unknown = worker.ask(job(elsewhere, "toy-2x2", tempo="fast"), 60)
    assert unknown["outcome"] == "error"
    assert "tempo" in unknown["message"]
    bug = worker.ask(job(elsewhere, "worse", traffic="copies"), 60)
    assert (bug["outcome"], "ZeroDivisionError" in bug["message"]) == ("error", True)
    worker.close()
