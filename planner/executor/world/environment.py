"""Who this process is, as its launcher says by environment variables.

============  ==========================================  ===========================
launcher      rank, size, rank on the machine             address and port of rank 0
============  ==========================================  ===========================
torchrun      RANK, WORLD_SIZE, LOCAL_RANK                MASTER_ADDR, MASTER_PORT
Open MPI      OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK    as set, or this machine
MPICH, Intel  PMI_RANK, PMI_SIZE, MPI_LOCALRANKID         as set, or this machine
Slurm srun    SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID   as set, or the first host of
                                                          SLURM_STEP_NODELIST
============  ==========================================  ===========================

They are asked in this order: ``mpirun`` inside a Slurm job sets both families, and its
processes are the ranks. ``planner`` sets torchrun's names for processes it starts.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

from planner.errors import UsageError

DEFAULT_PORT = 29500
"""torch.distributed's own default."""
FIRST_PORT, PORTS = 15_000, 15_000
"""Where a job's own port is looked for: below those that systems give out."""
HERE = "127.0.0.1"
JOB, LISTENER, REPORT = (
    "PLANNER_WORLD_JOB",
    "PLANNER_WORLD_LISTENER",
    "PLANNER_WORLD_REPORT",
)
"""What :mod:`planner.executor.world.launch` tells a rank that it starts."""
WAIT, WAIT_S = "PLANNER_WORLD_WAIT", 20.0
"""Seconds that ranks wait for each other; more where they start slowly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A rank as its launcher describes it.

    Attributes
    ----------
    job
        Tells runs apart that meet at one address; empty where nothing does.
    agent_store
        Whether torchrun's agent already serves a store at the address.
    listener, report
        Open file descriptors from :func:`~planner.executor.world.launch.launch`:
        the socket where rank 0 listens, and where a rank says why it ends.
    wait_s
        How long ranks wait for each other (PLANNER_WORLD_WAIT).
    """

    rank: int
    size: int
    local_rank: int
    address: str
    port: int
    launcher: str
    job: str = ""
    agent_store: bool = False
    listener: int | None = None
    report: int | None = None
    wait_s: float = WAIT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """The variables of one launcher; ``jobs`` name the run, any that is set."""

    launcher: str
    rank: str
    sizes: tuple[str, ...]
    local_ranks: tuple[str, ...]
    local_sizes: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


FAMILIES = (
    _Family(
        launcher="torchrun",
        rank="RANK",
        sizes=("WORLD_SIZE",),
        local_ranks=("LOCAL_RANK",),
        jobs=(JOB, "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    ),
    _Family(
        launcher="Open MPI",
        rank="OMPI_COMM_WORLD_RANK",
        sizes=("OMPI_COMM_WORLD_SIZE",),
        local_ranks=("OMPI_COMM_WORLD_LOCAL_RANK",),
        local_sizes=("OMPI_COMM_WORLD_LOCAL_SIZE",),
        jobs=("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"),
    ),
    _Family(
        launcher="MPICH",
        rank="PMI_RANK",
        sizes=("PMI_SIZE",),
        local_ranks=("MPI_LOCALRANKID", "PMI_LOCAL_RANK", "SLURM_LOCALID"),
        local_sizes=("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
        jobs=("PMI_JOBID", "SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
    _Family(
        launcher="Slurm",
        rank="SLURM_PROCID",
        sizes=("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
        local_ranks=("SLURM_LOCALID",),
        jobs=("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ),
)
STEP = ("SLURM_STEP_ID", "SLURM_STEPID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST")


def find(variables: Mapping[str, str] = os.environ) -> Found | None:
    """Return who this process is; None where no launcher started it.

    Raises
    ------
    UsageError
        If a launcher's variables are set by half, or their values make no sense.
    """
    given = {name: value for name, value in variables.items() if value}
    for family in FAMILIES:
        present = [name for name in (family.rank, *family.sizes) if name in given]
        if family.launcher == "Slurm":
            present = present if _in_step(given) else []
        if present:
            return _found(family, given)
    return None


def _in_step(given: Mapping[str, str]) -> bool:
    """Tell a task of srun from a batch script, which has SLURM_PROCID=0 as well.

    A step of one task is a shell (``srun --pty``), or needs no other process.
    """
    if "SLURM_PROCID" not in given:
        return False
    size = next((given[name] for name in FAMILIES[-1].sizes if name in given), "")
    started = given["SLURM_PROCID"] != "0" or "MASTER_ADDR" in given
    return size != "1" and (started or any(name in given for name in STEP))


def _found(family: _Family, given: Mapping[str, str]) -> Found:
    rank = _number(family, given, family.rank)
    size = _number(family, given, *family.sizes)
    if not 0 <= rank < size:
        raise UsageError(
            f"{family.rank}={rank} is no rank of a world of {size}: ranks are "
            f"numbered from 0 to {size - 1}"
        )
    has_local = any(name in given for name in family.local_ranks)
    job = ".".join(given[name] for name in family.jobs if name in given)
    own = JOB in given
    return Found(
        rank=rank,
        size=size,
        local_rank=_number(family, given, *family.local_ranks) if has_local else rank,
        address=given.get("MASTER_ADDR") or _address(family, given, size),
        port=_port(family, given, job),
        launcher="planner" if own else family.launcher,
        job=job,
        agent_store=given.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        and family.launcher == "torchrun"
        and not own,
        listener=int(given[LISTENER]) if LISTENER in given else None,
        report=int(given[REPORT]) if REPORT in given else None,
        wait_s=_number(family, given, WAIT) if WAIT in given else WAIT_S,
    )


def _number(family: _Family, given: Mapping[str, str], *names: str) -> int:
    """Return the whole number of the first of some variables that is set."""
    name = next((name for name in names if name in given), None)
    if name is None:
        raise UsageError(
            f"{names[0]} is not set, but other variables of {family.launcher} are: "
            f"start all ranks with one launcher, or unset {family.rank}"
        )
    try:
        return int(given[name])
    except ValueError:
        raise UsageError(
            f"{name}={given[name]!r} must be a whole number ({family.launcher})"
        ) from None


def _address(family: _Family, given: Mapping[str, str], size: int) -> str:
    """Return rank 0's machine where MASTER_ADDR does not say it."""
    nodes = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_JOB_NODELIST")
    if family.launcher == "Slurm" and nodes:
        return first_host(nodes)
    if any(given.get(name) == str(size) for name in family.local_sizes):
        return HERE
    raise UsageError(
        f"MASTER_ADDR is not set ({family.launcher}, rank {given[family.rank]} of "
        f"{size}): set it on every rank to the name or address of rank 0's machine"
    )


def _port(family: _Family, given: Mapping[str, str], job: str) -> int:
    """Return MASTER_PORT, or a port that ranks of one job agree on."""
    if "MASTER_PORT" in given:
        port = _number(family, given, "MASTER_PORT")
        if not 0 < port < 2**16:
            raise UsageError(f"MASTER_PORT={port} must be from 1 to 65535")
        return port
    if family.launcher == "torchrun":
        raise UsageError(
            f"MASTER_PORT is not set, but {family.rank} is: set it on every rank to "
            "a free port of rank 0's machine"
        )
    return FIRST_PORT + crc32(job.encode()) % PORTS if job else DEFAULT_PORT


def is_loopback(address: str) -> bool:
    """Tell whether an address means this machine, and nothing to another."""
    return address == "::1" or address.startswith("127.")


def first_host(nodes: str) -> str:
    """Return the first host of Slurm's list, such as ``node[03-05,9],login``."""
    name = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if name is None:
        raise UsageError(f"{nodes!r} is no list of Slurm hosts; set MASTER_ADDR")
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", name.group())
