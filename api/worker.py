"""One solve in a process of its own: request on stdin, answer on stdout.

Started as ``python -m api.worker SECONDS`` by :mod:`api.runner`. The process
ends by itself after that many seconds, so that it outlives no server. Exit status
0: stdout is a manifest; ``REFUSED``: stdout is a problem; anything else: a crash.
"""

import json
import os
import re
import signal
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from api.schemas import InlineTrace, PlanRequest
from planner import bundled, pipeline
from planner.errors import (
    InfeasibleError,
    InputError,
    ModelError,
    PlannerError,
    TopologyError,
    TraceError,
    UsageError,
    infeasible_data,
)
from planner.manifest import write_manifest
from planner.pipeline import TraceSource

REFUSED = 10
# The planner says "topology /json/pointer" or "file:/json/pointer", a file and a
# column, or nothing.
POINTER = re.compile(r"[: ](/\S*)$")
FIELDS: dict[type[PlannerError], str] = {
    TopologyError: "/topology",
    ModelError: "/model",
    TraceError: "/trace",
    UsageError: "/options",
}


def main() -> int:
    """Answer the request on stdin; return the exit status."""
    # The default action of SIGALRM ends the process even inside native code.
    signal.alarm(int(sys.argv[1]))
    # Native libraries write to descriptor 1 at will; the answer must be alone.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = PlanRequest.model_validate_json(sys.stdin.buffer.read())
    with answer:
        try:
            answer.write(solve(request))
        except PlannerError as error:
            several = request.workloads is not None
            answer.write(json.dumps(problem(error, several=several)))
            return REFUSED
    return 0


def solve(request: PlanRequest) -> str:
    """Return the manifest of a plan that the verifier passed, as JSON text.

    Raises
    ------
    PlannerError
        What the planner has against the request.
    """
    manifest = pipeline.solve(
        request.topology,
        model=request.model,
        trace=_traces(request),
        options=request.solve_options(),
    )
    plan = Path("plan.json")
    write_manifest(manifest, plan)
    pipeline.verify(plan)
    return plan.read_text(encoding="utf-8")


def problem(error: PlannerError, *, several: bool = False) -> dict[str, object]:
    """Return what the client is told about an error of the planner.

    ``several``: the request gives workloads; which one is said by the detail.
    """
    errors = []
    if isinstance(error, InputError | UsageError):
        rule = error.rule if isinstance(error, InputError) else str(error)
        several_traces = several and isinstance(error, TraceError)
        pointer = "/workloads" if several_traces else _pointer(error)
        errors.append({"pointer": pointer, "detail": _without_folders(rule)})
    return {
        "status": error.http_status,
        "kind": _kind(error),
        "detail": _without_folders(str(error)),
        "errors": errors,
        "causes": infeasible_data(error)["causes"]
        if isinstance(error, InfeasibleError)
        else [],
    }


def _pointer(error: InputError | UsageError) -> str:
    """Return the place in the request that an error is about."""
    field = next((name for kind, name in FIELDS.items() if isinstance(error, kind)), "")
    where = error.where if isinstance(error, InputError) else ""
    if where.startswith("inline counts"):
        field += "/counts"
    place = POINTER.search(where)
    return field + (place[1] if place else "")


def _without_folders(text: str) -> str:
    """Return a message without the server's own folders in it."""
    for kind in ("topologies", "tiny_moe"):
        text = text.replace(f"{bundled.folder(kind)}{os.sep}", "")
    return text


def _kind(error: PlannerError) -> str:
    """Return the problem's kind: the error's class in words."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"-{c.lower()}" if c.isupper() else c for c in name).strip("-")


def _traces(request: PlanRequest) -> list[TraceSource] | None:
    """Return the workloads as the planner takes them; None for its default."""
    if request.workloads is not None:
        return [
            replace(
                _source(each.trace),
                weight=Fraction(str(each.weight)),
                traffic=each.traffic,
                phase=each.phase or _own_phase(each.trace),
            )
            for each in request.workloads
        ]
    return None if request.trace is None else [_source(request.trace)]


def _own_phase(trace: str | InlineTrace) -> str | None:
    return None if isinstance(trace, str) else trace.counts.phase


def _source(trace: str | InlineTrace) -> TraceSource:
    if isinstance(trace, str):
        return TraceSource(name=trace, path=bundled.traces()[trace])
    return TraceSource(name="inline", inline=trace.counts.model_dump())


if __name__ == "__main__":
    sys.exit(main())
