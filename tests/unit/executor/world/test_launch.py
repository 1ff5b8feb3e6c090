"""Ranks that this process starts: one result, one error, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from planner.errors import ReplayMismatch, WorldError

pytest.importorskip("torch")

from planner.executor.world.launch import launch
from planner.executor.world.nursery import Nursery
from tests.unit.executor.world import programs
from tests.unit.executor.world.ranks import LONGEST_S, computing

pytestmark = pytest.mark.torch

PARENT = """
import sys
from planner.executor.world.launch import launch
from tests.unit.executor.world.programs import total_of
launch(total_of, [{"rounds": 10**9, "folder": sys.argv[1]}], size=2)
"""


def test_a_launch_returns_what_rank_0_returned(nursery: Nursery) -> None:
    """Law: all ranks ran, rank 0's result comes back."""
    assert launch(programs.total_of, [{}], size=3, nursery=nursery) == 3


def test_a_program_may_join_one_world_after_the_other(nursery: Nursery) -> None:
    """Law: a world that was left leaves its address to the next one."""
    assert launch(programs.twice, size=3, nursery=nursery) == [3, 3]


@pytest.mark.parametrize(
    ("fault", "kind", "says", "code"),
    [
        ("kill", WorldError, r"^rank 1 was killed by signal 9 \(SIGKILL\)$", 5),
        ("mismatch", ReplayMismatch, "^layer 3 differs; layer 4 differs$", 6),
    ],
)
def test_a_launch_raises_what_began_it(
    nursery: Nursery,
    fault: str,
    kind: type[WorldError | ReplayMismatch],
    says: str,
    code: int,
) -> None:
    """Law: one error, of the rank that failed, not of those that noticed."""
    options = {"rounds": 10**9, "fault": fault, "of": 1}
    with pytest.raises(kind, match=says) as raised:
        launch(programs.total_of, [options], size=3, nursery=nursery)
    assert raised.value.exit_code == code


def test_an_interrupt_ends_all_ranks(nursery: Nursery, tmp_path: Path) -> None:
    """Law: the keyboard's interrupt is the parent's, and none is left."""

    def interrupt() -> None:
        computing(tmp_path, 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    options = {"rounds": 10**9, "folder": str(tmp_path)}
    with pytest.raises(KeyboardInterrupt):
        launch(programs.total_of, [options], size=2, nursery=nursery)
    assert not any(_lives(rank) for rank in _processes(tmp_path))


def test_no_rank_outlives_the_process_that_started_it(
    root: Path, tmp_path: Path
) -> None:
    """Law: a parent that is killed leaves nothing behind."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, cwd=root) as parent:
        computing(tmp_path, 2)
        parent.kill()
    deadline = time.monotonic() + LONGEST_S
    while any(_lives(rank) for rank in _processes(tmp_path)):
        assert time.monotonic() < deadline, "a rank outlived its parent"
        time.sleep(0.05)


def _processes(folder: Path) -> list[int]:
    return [int(file.read_text()) for file in folder.iterdir()]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # A process that ended but was not waited for is gone as well.
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or ") Z" not in state.read_text()
