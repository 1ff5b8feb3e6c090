"""``planner bench``: run a suite, judge it, write the reports, keep the baseline."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from planner.bench.against import checked_out
from planner.bench.baseline import (
    Baseline,
    accepted,
    entry_of,
    read_baseline,
    updated,
    write_baseline,
)
from planner.bench.case import Case
from planner.bench.findings import NEVER_ACCEPTED
from planner.bench.machine import Machine, this_machine
from planner.bench.reports.layers import layers_csv
from planner.bench.result import Result, write_results
from planner.bench.rules import Before
from planner.bench.suite import BASELINE, Runner, find_cases, run_cases
from planner.bench.verdict import Verdict, reached_verdict
from planner.errors import UsageError
from planner.manifest import write_text_atomically

RESULTS, LAYERS = "results.jsonl", "layers.csv"
Tell = Callable[[str, Result, int, int], None]
"""Hears whose result came: revision, result, how many are done, how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What to run and what to compare with.

    Attributes
    ----------
    baseline
        The file; default: ``baseline.json`` beside the suite's folder, if there.
    new_baseline
        Whether the file named may still be missing.
    against
        A revision to compare with instead of the baseline.
    """

    suite: Path
    tags: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    baseline: Path | None = None
    new_baseline: bool = False
    against: str | None = None


def baseline_beside(suite: Path) -> Path | None:
    """Return ``baseline.json`` beside a suite's folder, if it is there."""
    path = suite.parent / BASELINE
    return path if path.is_file() else None


def bench(options: BenchOptions, runner: Runner, tell: Tell) -> Verdict:
    """Run the cases and judge them.

    Raises
    ------
    InputError
        For a bad case, baseline or digest.
    UsageError
        For a tag, name or revision that does not exist.
    """
    begun = time.perf_counter()
    if options.against is not None and options.baseline is not None:
        raise UsageError("give --baseline or --against, not both")
    cases = find_cases(options.suite, tags=options.tags, names=options.names)
    path = None
    if options.against is not None:
        before, origin = _other_revision(cases, options.against, runner, tell)
        removed: list[str] = []
    else:
        path = options.baseline or baseline_beside(options.suite)
        known = None if path is None else _known(path, new=options.new_baseline)
        before, origin = before_of(known, path, this_machine())
        removed = _removed(known, options.suite)
    results = run_cases(cases, runner, _counted("", len(cases), tell))
    verdict = Verdict(
        results=tuple(results),
        findings=reached_verdict(results, before, removed=removed, origin=origin),
        machine=this_machine(),
        origin=origin,
        before=before,
        files={case.name: case.path for case in cases},
        suite=options.suite,
        baseline=path,
        seconds=time.perf_counter() - begun,
    )
    write_results(runner.folder / RESULTS, results, verdict.machine)
    write_text_atomically(layers_csv(results), runner.folder / LAYERS)
    return verdict


def read_or_empty(path: Path) -> Baseline:
    """Return the baseline of a file; an empty one if there is no file yet."""
    return read_baseline(path) if path.exists() else Baseline()


def before_of(
    baseline: Baseline | None, path: Path | None, machine: Machine
) -> tuple[dict[str, Before], str]:
    """Return the entries to compare with, and how a reader calls them."""
    if baseline is None or path is None:
        return {}, ""
    same = baseline.machine is not None and baseline.machine.is_as_fast_as(machine)
    origin = "the baseline"
    return {
        name: Before(entry=entry, origin=origin, times_compare=same)
        for name, entry in baseline.cases.items()
    }, origin


def update(verdict: Verdict, path: Path) -> list[str]:
    """Tighten the baseline by what does not block; return the cases that changed."""
    old = read_or_empty(path)
    blocked = {finding.case for finding in verdict.blocking}
    good = [result for result in verdict.results if result.name not in blocked]
    new = updated(old, good, verdict.machine)
    if new != old:
        write_baseline(new, path)
    return [name for name, entry in new.cases.items() if old.cases.get(name) != entry]


def accept(verdict: Verdict, path: Path, names: Sequence[str], reason: str) -> Verdict:
    """Take the results of ``names`` into the baseline, and judge again.

    Raises
    ------
    UsageError
        Without a reason, for a case that did not run though the suite has it, or for
        a plan that is wrong rather than worse.
    """
    if not reason.strip():
        raise UsageError("--accept needs --reason: say why worse is right")
    results = {result.name: result for result in verdict.results}
    suite = {case.name for case in find_cases(verdict.suite)}
    for name in names:
        if name not in results and name in suite:
            raise UsageError(f"--accept {name}: the case did not run")
        if name not in results and name not in read_or_empty(path).cases:
            raise UsageError(f"--accept {name}: neither a case nor in {path}")
        wrong = [each for each in verdict.of(name) if each.rule in NEVER_ACCEPTED]
        wrong = [each for each in wrong if each.level == "block"]
        if wrong:
            raise UsageError(f"--accept {name}: {wrong[0].rule}: {wrong[0].text}")
    today = datetime.now(UTC).date().isoformat()
    new = accepted(read_or_empty(path), results, names, reason, today)
    if new.machine is None:
        new = new.model_copy(update={"machine": verdict.machine})
    write_baseline(new, path)
    before, origin = before_of(new, path, verdict.machine)
    findings = reached_verdict(
        verdict.results, before, removed=_removed(new, verdict.suite), origin=origin
    )
    return replace(verdict, findings=findings, before=before, origin=origin)


def _known(path: Path, *, new: bool) -> Baseline:
    """Return a baseline; a missing one is an error unless it is to be written."""
    return read_or_empty(path) if new else read_baseline(path)


def _removed(baseline: Baseline | None, suite: Path) -> list[str]:
    """Return the cases of the baseline that the suite no longer has."""
    if baseline is None:
        return []
    return sorted({*baseline.cases} - {case.name for case in find_cases(suite)})


def _other_revision(
    cases: Sequence[Case], ref: str, runner: Runner, tell: Tell
) -> tuple[Mapping[str, Before], str]:
    """Run the cases with the planner of another revision."""
    with checked_out(ref) as revision:
        there = replace(runner, folder=runner.folder / "against", root=revision.root)
        results = run_cases(cases, there, _counted(ref, len(cases), tell))
        write_results(there.folder / RESULTS, results, this_machine())
    before = {
        result.name: Before(
            entry=entry_of(result), origin=revision.name, times_compare=True
        )
        for result in results
        if result.outcome != "skipped"
    }
    return before, revision.name


def _counted(ref: str, total: int, tell: Tell) -> Callable[[Result], None]:
    done = 0

    def heard(result: Result) -> None:
        nonlocal done
        done += 1
        tell(ref, result, done, total)

    return heard
