"""A suite: a folder of cases; which of them run, and what they came to."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from planner.bench.case import SUFFIX, Case, TraceDocument, read_case
from planner.bench.pool import Worker, source_root, with_workers, worker_command
from planner.bench.result import Result, result_of
from planner.bench.synth import write_synth
from planner.errors import InputError, UsageError
from planner.manifest import digest_of_file

DEFAULT_SUITE = Path("benchmarks/cases")
BASELINE = "baseline.json"
"""Name of the baseline that is looked for beside a suite's folder."""
MANIFESTS, TRACES = "manifests", "traces"
Tell = Callable[[Result], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """How cases are run.

    Attributes
    ----------
    folder
        Where traces and manifests are written.
    jobs
        Cases at once; 0 for one per core.
    root
        Folder whose ``planner`` is measured; default: the running one.
    """

    folder: Path
    jobs: int = 0
    command: tuple[str, ...] = field(default_factory=worker_command)
    root: Path = field(default_factory=source_root)


def find_cases(
    suite: Path, *, tags: Sequence[str] = (), names: Sequence[str] = ()
) -> list[Case]:
    """Return the cases of a folder that have one of ``tags`` or are named.

    Raises
    ------
    InputError
        If the folder holds no case, or one of its cases breaks a rule.
    UsageError
        For a name that is no case, or if nothing is left.
    """
    files = sorted(suite.glob(f"*{SUFFIX}")) if suite.is_dir() else []
    if not files:
        raise InputError(
            "holds no case files (*.toml)",
            where=str(suite),
            fix="name a folder of cases with --suite",
        )
    cases = [read_case(file) for file in files]
    known = [case.name for case in cases]
    for name in names:
        if name not in known:
            raise UsageError(f"no case {name!r} in {suite}: {', '.join(known)}")
    if names:
        return [case for case in cases if case.name in names]
    chosen = [case for case in cases if not tags or set(tags) & set(case.tags)]
    if not chosen:
        all_tags = sorted({tag for case in cases for tag in case.tags})
        raise UsageError(
            f"no case in {suite} has a tag of {', '.join(tags)}; there are "
            f"{', '.join(all_tags)}"
        )
    return chosen


def run_cases(
    cases: Sequence[Case], runner: Runner, tell: Tell = lambda _: None
) -> list[Result]:
    """Run the cases and return their results in the order of the cases.

    ``tell`` hears every result as it comes, from several threads.

    Raises
    ------
    InputError
        If a trace has another digest than its case says.
    """
    folder = prepared(runner.folder)

    def work(case: Case, worker: Worker) -> Result:
        result = run_case(case, worker, folder)
        tell(result)
        return result

    return with_workers(
        cases,
        work,
        workers=runner.jobs or os.cpu_count() or 1,
        command=runner.command,
        root=runner.root,
    )


def prepared(folder: Path) -> Path:
    """Make the folders that cases are run in; return the absolute path."""
    for name in (MANIFESTS, TRACES):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def run_case(case: Case, worker: Worker, folder: Path) -> Result:
    """Return what comes out of one case; skipped where its data is not there.

    ``folder`` is one that :func:`prepared` made.
    """
    path = case.trace_path
    manifest = folder / MANIFESTS / f"{case.name}.json"
    if path is not None and not path.is_file():
        reply = {"outcome": "skipped", "message": f"{path} is not there"}
        return result_of(case, reply, manifest)
    job = {
        "topology": case.topology,
        "model": case.model,
        "trace": trace_source(case, folder / TRACES),
        # One thread: what a search finds must not depend on who came first.
        "options": {"threads": 1, **case.options},
        "manifest": str(manifest),
    }
    return result_of(case, worker.ask(job, most_seconds(case)), manifest)


def most_seconds(case: Case) -> float:
    """Return when a case that does not keep its time limit is stopped."""
    return 3 * case.seconds + 60


def trace_source(case: Case, folder: Path) -> Any:
    """Return the trace as the facade takes it; a synthetic one is written first."""
    trace, path = case.trace, case.trace_path
    if not isinstance(trace, TraceDocument):
        return trace
    if trace.counts is not None:
        return trace.counts
    if trace.synth is not None:
        drawn = folder / f"{case.name}.parquet"
        write_synth(drawn, trace.synth)
        return str(drawn)
    found = digest_of_file(path) if path is not None else ""
    if found != trace.sha256:
        raise InputError(
            f"is not the file of the case: its digest is {found}",
            where=str(path),
            fix=f"give the file of {trace.sha256}, or change the case",
        )
    return f"{path}#{trace.workload}" if trace.workload else str(path)
