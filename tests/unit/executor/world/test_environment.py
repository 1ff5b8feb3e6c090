"""Rank, size and address from launchers' variables, by table."""

import pytest

from planner.errors import UsageError
from planner.executor.world.environment import (
    DEFAULT_PORT,
    FIRST_PORT,
    PORTS,
    WAIT,
    find,
    first_host,
)

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node0",
    "MASTER_PORT": "1234",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[3-4]",
    "SLURM_STEP_ID": "2",
    "SLURM_JOB_ID": "31",
}
AT = {"MASTER_ADDR": "node0", "MASTER_PORT": "1234"}


@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", TORCHRUN),
        ("Open MPI", OPEN_MPI | AT),
        ("MPICH", MPICH | AT),
        ("Slurm", SLURM | AT),
        ("torchrun", TORCHRUN | SLURM),
        ("Open MPI", OPEN_MPI | SLURM | AT),
        ("MPICH", MPICH | SLURM | {"SLURM_PROCID": "0"} | AT),
    ],
)
def test_each_launcher_says_who_a_rank_is(
    launcher: str, variables: dict[str, str]
) -> None:
    """Law: the process that was started last in a chain of launchers is the rank."""
    found = find(variables)
    assert found is not None
    assert (found.launcher, found.rank, found.size) == (launcher, 5, 8)
    assert (found.local_rank, found.address, found.port) == (1, "node0", 1234)
    assert not found.agent_store


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"PATH": "/bin", "MASTER_ADDR": "node0"},
        {"RANK": "", "WORLD_SIZE": ""},
        {"SLURM_JOB_ID": "31", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "node3"},
        # A batch script is no task of srun, nor is a shell in a step of its own.
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"},
        SLURM | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
    ],
)
def test_without_a_launcher_nothing_is_found(variables: dict[str, str]) -> None:
    """Law: the caller then starts ranks of its own."""
    assert find(variables) is None


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "1"}, "WORLD_SIZE is not set, but other variables of torchrun are"),
        ({"WORLD_SIZE": "2"}, "RANK is not set, but other variables of torchrun are"),
        (TORCHRUN | {"RANK": "8"}, "RANK=8 is no rank of a world of 8"),
        (TORCHRUN | {"RANK": "x"}, "RANK='x' must be a whole number"),
        (TORCHRUN | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set .torchrun, rank 5"),
        (TORCHRUN | {"MASTER_PORT": ""}, "MASTER_PORT is not set, but RANK is"),
        (TORCHRUN | {"MASTER_PORT": "0"}, "MASTER_PORT=0 must be from 1 to 65535"),
        (TORCHRUN | {"MASTER_PORT": "p"}, "MASTER_PORT='p' must be a whole number"),
        (OPEN_MPI, "MASTER_ADDR is not set .Open MPI, rank 5 of 8.: set it"),
        ({"PMI_RANK": "0"}, "PMI_SIZE is not set, but other variables of MPICH are"),
        (
            {"SLURM_PROCID": "1"},
            "SLURM_STEP_NUM_TASKS is not set, but other variables of Slurm are",
        ),
    ],
)
def test_variables_set_by_half_are_one_clear_error(
    variables: dict[str, str], says: str
) -> None:
    """Law: the message names the variable and the launcher."""
    with pytest.raises(UsageError, match=says):
        find(variables)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, "127.0.0.1"),
        (MPICH | {"MPI_LOCALNRANKS": "8"}, "127.0.0.1"),
        (SLURM, "node3"),
        (SLURM | {"SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": "a7,b"}, "a7"),
    ],
)
def test_the_address_follows_from_the_launcher(
    variables: dict[str, str], address: str
) -> None:
    """Law: this machine where all ranks are on it; the first host of Slurm's list."""
    found = find(variables)
    assert found is not None
    assert found.address == address


def test_ranks_of_a_job_agree_on_a_port_that_other_jobs_do_not_have() -> None:
    """Law: without MASTER_PORT the port follows from the job, else it is torch's."""
    ports = set()
    for job in range(20):
        ranks = [
            find(SLURM | {"SLURM_JOB_ID": str(job), "SLURM_PROCID": rank})
            for rank in "14"
        ]
        assert ranks[0] is not None
        assert ranks[1] is not None
        assert ranks[0].port == ranks[1].port
        assert ranks[0].job == ranks[1].job == f"{job}.2"
        ports.add(ranks[0].port)
    assert len(ports) > 15
    assert all(FIRST_PORT <= port < FIRST_PORT + PORTS for port in ports)
    found = find(MPICH | {"MPI_LOCALNRANKS": "8"})
    assert found is not None
    assert found.port == DEFAULT_PORT


def test_ranks_wait_as_long_as_they_are_told() -> None:
    """Law: 20 s, or PLANNER_WORLD_WAIT."""
    for variables, expected in ((TORCHRUN, 20), (TORCHRUN | {WAIT: "90"}, 90)):
        found = find(variables)
        assert found is not None
        assert found.wait_s == expected


def test_torchruns_agent_serves_a_store_unless_told_otherwise() -> None:
    """Law: the agent's word is taken as torch itself takes it."""
    for said, expected in (("True", True), ("False", False)):
        found = find(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": said})
        assert found is not None
        assert found.agent_store is expected


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node7", "node7"),
        ("node[03-05,9],login", "node03"),
        ("node[9,3]", "node9"),
        ("rack[1-2]-node[10-12]", "rack1-node10"),
        ("a,b", "a"),
        ("gpu[0041]-ib", "gpu0041-ib"),
    ],
)
def test_the_first_host_of_a_slurm_list(nodes: str, host: str) -> None:
    """Law: ranges begin with their first number, leading zeros kept."""
    assert first_host(nodes) == host
