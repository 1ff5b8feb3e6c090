"""The facade: load, solve, evaluate, verify, replay, export.

The command line, the Python API and REST call these functions and nothing below.
"""

from dataclasses import asdict, is_dataclass
from typing import Any

from planner.constraints import read_constraints
from planner.errors import UsageError
from planner.exporters.base import EXPORTERS
from planner.pipeline.comparing import SelectionReport, compare_selections
from planner.pipeline.constraining import read_previous
from planner.pipeline.diagnosing import Diagnosis, diagnose
from planner.pipeline.evaluating import evaluate
from planner.pipeline.explaining import Explanation, explain
from planner.pipeline.exporting import export
from planner.pipeline.kernels import compile_kernels
from planner.pipeline.problem import Problem, build_problem
from planner.pipeline.replaying import ReplayReport
from planner.pipeline.solving import check_writable, load, solve
from planner.pipeline.sources import TraceSource
from planner.pipeline.starting import replay
from planner.pipeline.verifying import check_inputs, verify
from planner.registry import Registry
from planner.strategies.base import STRATEGIES, Event
from planner.traffic.base import TRAFFIC

__all__ = [
    "Diagnosis",
    "Event",
    "Explanation",
    "Problem",
    "ReplayReport",
    "SelectionReport",
    "TraceSource",
    "available",
    "build_problem",
    "check_inputs",
    "check_writable",
    "compare_selections",
    "compile_kernels",
    "diagnose",
    "evaluate",
    "explain",
    "export",
    "load",
    "plain",
    "read_constraints",
    "read_previous",
    "replay",
    "solve",
    "verify",
]

_FAMILIES: dict[str, Registry[Any]] = {
    "strategy": STRATEGIES,
    "exporter": EXPORTERS,
    "traffic mode": TRAFFIC,
}


def available(family: str) -> list[str]:
    """Return the members of a family: strategy, exporter or traffic mode."""
    if family not in _FAMILIES:
        raise UsageError(f"no family {family!r}; choose from {', '.join(_FAMILIES)}")
    return _FAMILIES[family].names()


def plain(report: object) -> dict[str, Any]:
    """Return a report dataclass as JSON values."""
    if not is_dataclass(report) or isinstance(report, type):
        raise TypeError(f"{report!r} is not a report")
    return asdict(report)
