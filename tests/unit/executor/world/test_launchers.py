"""Ranks that torchrun, mpirun and srun start meet, whatever their variables."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.executor.world.ranks import Ranks, free_port

if TYPE_CHECKING:
    from planner.executor.world.nursery import Nursery

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

RANK = ["-m", "tests.unit.executor.world.programs"]


def torchrun(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Start two ranks by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, *RANK, *options],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
def test_torchrun_starts_ranks(root: Path) -> None:
    """Law: ranks of torchrun meet through the store of its agent."""
    done = torchrun(root)
    assert (done.returncode, done.stdout) == (0, "total 2\ntotal 2\n"), done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        [
            {
                "OMPI_COMM_WORLD_RANK": str(rank),
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
            }
            for rank in range(2)
        ],
        [
            {
                "PMI_RANK": str(rank),
                "PMI_SIZE": "2",
                "MPI_LOCALRANKID": str(rank),
                "MPI_LOCALNRANKS": "2",
            }
            for rank in range(2)
        ],
        [
            {
                "SLURM_PROCID": str(rank),
                "SLURM_NTASKS": "2",
                "SLURM_LOCALID": str(rank),
                "SLURM_STEP_ID": "0",
                "SLURM_JOB_ID": "77",
                "SLURM_STEP_NODELIST": "localhost",
            }
            for rank in range(2)
        ],
    ],
    ids=["Open MPI", "MPICH", "Slurm"],
)
def test_ranks_of_mpirun_and_srun_meet(
    nursery: "Nursery", variables: list[dict[str, str]]
) -> None:
    """Law: rank, size and address come from the launcher's variables."""
    port = {"MASTER_PORT": str(free_port())}
    told = Ranks(nursery, [given | port for given in variables]).told()
    assert [(rank.words, rank.value) for rank in told] == [("", 2), ("", 2)]
