"""Hold the gate against seeded faults and against changes that must not matter.

    python -m benchmarks.gate_faults [NAME ...]

Runs a small suite once as it is, takes its baseline, then once with each fault
(all must close the gate) and once with each harmless change (none may). Prints a
row per change and the first finding. Exit code 1 if one was judged wrongly.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from planner.bench.baseline import Baseline, updated
from planner.bench.bench import before_of
from planner.bench.machine import this_machine
from planner.bench.suite import Runner, find_cases, run_cases
from planner.bench.verdict import Verdict, reached_verdict

SUITE = Path(__file__).parent / "cases"
SENTINELS = (
    "box-copies-even",
    "cap-infeasible",
    "degraded-nic-copies",
    "memory-infeasible",
    "optimum-enumerated-unequal",
    "optimum-planted-loads",
    "rail-copies-nearest-copies",
    "rail-dedup-domain-cap",
    "rail-homes-by-tag",
    "tiny-eplb-global",
)
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "hash-seed-0": {"PYTHONHASHSEED": "0"},
    "hash-seed-1": {"PYTHONHASHSEED": "1"},
    "locale-and-time-zone": {"LC_ALL": "C", "TZ": "Asia/Tokyo"},
    "more-threads-of-libraries": {"OMP_NUM_THREADS": "2"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A way to run the suite.

    ``rewrite`` edits the suite's folder; ``plant`` names what is put into the worker.
    """

    name: str
    about: str
    must_close: bool = False
    plant: str | None = None
    rewrite: Callable[[Path], object] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    backwards: bool = False


def changes() -> list[Change]:
    """Return all faults, then all changes that must not matter."""
    from benchmarks.faults import FAULTS, HARMLESS

    found = [
        Change(name=name, about=about, plant=name, must_close=True)
        for name, (about, _) in FAULTS.items()
    ]
    found += [
        Change(name=name, about=about, plant=name)
        for name, (about, _) in HARMLESS.items()
    ]
    found += [
        Change(name=name, about=f"environment {values}", environment=values)
        for name, values in ENVIRONMENTS.items()
    ]
    found += [
        Change(name=name, about=about, rewrite=rewrite)
        for name, (about, rewrite) in REWRITES.items()
    ]
    found.append(Change(name="two-jobs", about="two cases at once", jobs=2))
    found.append(Change(name="backwards", about="cases in reverse", backwards=True))
    return found


def run(
    change: Change, *, names: tuple[str, ...] = SENTINELS, known: Baseline
) -> Verdict:
    """Run the suite under a change and judge it against ``known``."""
    with tempfile.TemporaryDirectory(prefix="gate-") as folder, _set(change):
        suite = Path(folder) / "suite"
        shutil.copytree(SUITE, suite)
        if change.rewrite is not None:
            change.rewrite(suite)
        cases = find_cases(suite, names=names)
        if change.backwards:
            cases = cases[::-1]
        runner = Runner(folder=Path(folder) / "out", jobs=change.jobs)
        if change.plant is not None:
            command = (sys.executable, "-P", "-m", "benchmarks.gate_faults")
            runner = replace(runner, command=(*command, "--worker", change.plant))
        results = run_cases(cases, runner)
        before, origin = before_of(known, Path("baseline.json"), this_machine())
        return Verdict(
            results=tuple(results),
            findings=reached_verdict(results, before, origin=origin),
            machine=this_machine(),
            origin=origin,
            before=before,
            files={case.name: case.path for case in cases},
            suite=suite,
        )


def baseline(names: tuple[str, ...] = SENTINELS) -> Baseline:
    """Return what the planner reaches as it is."""
    plain = Change(name="as it is", about="")
    verdict = run(plain, names=names, known=Baseline())
    return updated(Baseline(), verdict.results, verdict.machine)


@contextmanager
def _set(change: Change) -> Any:
    """Set the environment that workers inherit, for a while."""
    before = {name: os.environ.get(name) for name in change.environment}
    os.environ.update(change.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _edit_cases(edit: Callable[[str], str]) -> Callable[[Path], None]:
    def rewrite(suite: Path) -> None:
        for path in suite.glob("*.toml"):
            path.write_text(edit(path.read_text(encoding="utf-8")), encoding="utf-8")

    return rewrite


def _options_reversed(text: str) -> str:
    head, mark, options = text.partition("[options]\n")
    own, table, tables = options.partition("\n[")
    lines = reversed(own.strip().splitlines())
    return head + mark + "\n".join(lines) + "\n" + table + tables


def _commented(text: str) -> str:
    lines = [
        f"{line}  # as before" if "=" in line else line for line in text.split("\n")
    ]
    return "# a comment\n\n" + "\n".join(lines)


def _reordered(value: Any) -> Any:
    """Objects with their keys reversed; lists as they are."""
    if isinstance(value, dict):
        return {key: _reordered(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [_reordered(item) for item in value]
    return value


def _edit_files(suite: Path) -> None:
    for path in [*suite.glob("topologies/*.json"), *suite.glob("models/*.json")]:
        data = _reordered(json.loads(path.read_text(encoding="utf-8")))
        path.write_text(json.dumps(data), encoding="utf-8")


def _move_files(suite: Path) -> None:
    (suite / "topologies").rename(suite / "clusters")
    (suite / "models").rename(suite / "shapes")
    _edit_cases(
        lambda text: text.replace('"topologies/', '"clusters/').replace(
            '"models/', '"shapes/'
        )
    )(suite)


def _with_options(lines: str) -> Callable[[str], str]:
    return lambda text: text.replace("[options]\n", "[options]\n" + lines)


REWRITES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "options-reordered": ("options in reverse", _edit_cases(_options_reversed)),
    "commented": ("comments and blank lines", _edit_cases(_commented)),
    "keys-reordered": ("keys of clusters and models in reverse", _edit_files),
    "files-moved": ("clusters and models in other folders", _move_files),
    "default-spelled-out": (
        "a default written into the case",
        _edit_cases(_with_options('phase = "prefill"\n')),
    ),
    "two-threads": ("two threads", _edit_cases(_with_options("threads = 2\n"))),
    "longer-limit": (
        "time limits doubled",
        _edit_cases(lambda text: text.replace("time_limit = 60", "time_limit = 120")),
    ),
    "retold": (
        "other words and tags",
        _edit_cases(
            lambda text: text.replace('about = "', 'about = "now: ').replace(
                'tags = ["fast"]', 'tags = ["fast", "nightly"]'
            )
        ),
    ),
}


def main() -> int:
    """Run all changes, or those named, and print the table."""
    if sys.argv[1:2] == ["--worker"]:
        from benchmarks.faults import plant
        from planner.bench.worker import main as work

        plant(sys.argv[2])
        work()
        return 0
    wanted = sys.argv[1:]
    known = baseline()
    wrong = 0
    for change in changes():
        if wanted and change.name not in wanted:
            continue
        verdict = run(change, known=known)
        closed = bool(verdict.blocking)
        right = closed == change.must_close
        wrong += not right
        rules = sorted({each.rule for each in verdict.blocking})
        first = verdict.blocking[0] if closed else None
        print(
            f"{'ok   ' if right else 'WRONG'} "
            f"{'fault ' if change.must_close else 'no-op '} {change.name:26} "
            f"{'closed' if closed else 'open  '} {', '.join(rules):32} "
            + (f"{first.case}: {first.text[:110]}" if first else change.about),
            flush=True,
        )
    print(f"{wrong} judged wrongly")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
