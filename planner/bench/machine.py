"""The machine a run was made on, without anything that names it."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from planner import __version__
from planner.manifest.schema import Positive, Record

PACKAGES = ("ortools", "numpy", "numba")


class Machine(Record):
    """System, processor and versions."""

    system: str
    machine: str
    cores: Positive
    python: str
    versions: dict[str, str]

    def is_as_fast_as(self, other: "Machine") -> bool:
        """Whether times of both can be compared, as far as this can tell."""
        mine, its = (
            (each.system, each.machine, each.cores, each.python)
            for each in (self, other)
        )
        return mine == its


def this_machine() -> Machine:
    """Return the fingerprint of the machine this runs on."""
    versions = {"moe-placement-planner": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        system=platform.system(),
        machine=platform.machine(),
        cores=os.cpu_count() or 1,
        python=platform.python_version(),
        versions=versions,
    )
