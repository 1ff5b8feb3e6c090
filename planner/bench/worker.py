"""Solves cases in a process of its own: one JSON job per line in, one reply out.

Started by path, so that the ``planner`` on ``PYTHONPATH`` is the one measured; it
may be an older revision. Therefore this file uses the facade and nothing else of
the planner, and what it does not find it reports.
"""

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

OUTCOMES = {
    "UsageError": "invalid",
    "InputError": "invalid",
    "InfeasibleError": "infeasible",
    "LimitError": "no_plan",
}


def main() -> None:
    """Answer jobs until the input ends."""
    # Solvers print; only replies may reach the parent's pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one job: ``warm_up`` or a case."""
    try:
        return _warm_up() if job.get("warm_up") else _solve(job)
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        known = [OUTCOMES[name] for name in names if name in OUTCOMES]
        outcome = known[0] if known else "error"
        message = str(error)
        if outcome == "error":
            message = traceback.format_exc(limit=-3).strip()
        return {"outcome": outcome, "message": message}


def _warm_up() -> dict[str, Any]:
    """Compile what is not cached, before any clock runs."""
    from planner import pipeline

    compile_kernels = getattr(pipeline, "compile_kernels", None)
    if compile_kernels is not None:
        compile_kernels()
    return {"outcome": "warm"}


def _solve(job: dict[str, Any]) -> dict[str, Any]:
    from planner import pipeline
    from planner.manifest import write_manifest

    path = Path(job["manifest"])
    begun, cpu_begun = time.perf_counter(), time.process_time()
    manifest = pipeline.solve(
        job["topology"],
        model=job["model"],
        trace=job["trace"],
        options=_options(job["options"]),
        base=path.parent,
    )
    seconds = time.perf_counter() - begun
    cpu_seconds = time.process_time() - cpu_begun
    write_manifest(manifest, path)
    return {
        "outcome": "plan",
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu_seconds, 3),
        "findings": _verify(path),
    }


def _options(values: dict[str, Any]) -> Any:
    from planner.options import SolveOptions

    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return SolveOptions(**given)


def _verify(path: Path) -> list[str]:
    """Return what the independent verifier finds wrong; empty if all agrees."""
    from planner import pipeline
    from planner.errors import PlannerError

    try:
        pipeline.verify(path)
    except PlannerError as error:
        findings: list[str] = getattr(error, "findings", [str(error)])
        return findings[:20]
    return []


if __name__ == "__main__":
    main()
