"""A pytest plugin: ``pytest --placement-suite DIR --placement-baseline FILE``.

One test per case, and one for the suite as a whole. pytest loads this file in every
run, so it imports the rest of the planner only when a suite is named.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from planner.bench.case import Case
    from planner.bench.pool import Worker
    from planner.bench.result import Result
    from planner.bench.rules import Before
    from planner.bench.verdict import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("placement", "quality of expert placement")
    group.addoption("--placement-suite", metavar="DIR", help="folder of case files")
    group.addoption(
        "--placement-baseline",
        metavar="FILE",
        help="what the cases reached before; default: baseline.json beside the suite",
    )
    group.addoption(
        "--placement-tags",
        metavar="A,B",
        default="",
        help="only cases with one of these tags",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect the suite: alone, or with the tests named on the command line."""
    suite = config.getoption("--placement-suite")
    if suite is None:
        return
    if not Path(suite).is_dir():
        raise pytest.UsageError(f"--placement-suite {suite} is not a folder")
    baseline = config.getoption("--placement-baseline")
    if baseline is not None and not Path(baseline).is_file():
        raise pytest.UsageError(f"--placement-baseline {baseline} is not a file")
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    config.args = [*config.args, suite] if named else [suite]
    config.stash[_BENCH] = _Bench(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the worker and drop what it wrote."""
    bench = config.stash.get(_BENCH, None)
    if bench is not None:
        bench.close()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "CaseFile | None":
    """Take the case files of the suite."""
    bench = parent.config.stash.get(_BENCH, None)
    if bench is None or file_path.suffix != ".toml":
        return None
    if file_path.parent != bench.suite:
        return None
    return CaseFile.from_parent(parent, path=file_path)


def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the test of the whole suite, last."""
    if any(isinstance(item, CaseItem) for item in items):
        items.append(SuiteItem.from_parent(session, name="placement-suite"))


def pytest_terminal_summary(
    terminalreporter: Any, exitstatus: int, config: pytest.Config
) -> None:
    """Print one line per case."""
    bench = config.stash.get(_BENCH, None)
    if bench is None or not bench.results:
        return
    from planner.bench.reports.table import table

    terminalreporter.section("placement")
    terminalreporter.write_line(table(bench.verdict()))


class _Bench:
    """The suite, its baseline and one worker for all cases of this process."""

    def __init__(self, config: pytest.Config) -> None:
        self.suite = Path(config.getoption("--placement-suite")).resolve()
        given = config.getoption("--placement-baseline")
        self.tags = [
            tag for tag in config.getoption("--placement-tags").split(",") if tag
        ]
        self._given = None if given is None else Path(given)
        self._scratch = tempfile.TemporaryDirectory(prefix="placement-")
        self._worker: Worker | None = None
        self._before: tuple[dict[str, Before], str] | None = None
        self.results: list[Result] = []
        self.files: dict[str, Path] = {}

    @property
    def baseline(self) -> Path | None:
        """The baseline's file, if there is one."""
        from planner.bench.bench import baseline_beside

        return self._given or baseline_beside(self.suite)

    def before(self) -> tuple[dict[str, "Before"], str]:
        """Return the entries to compare with, read once."""
        from planner.bench.baseline import read_baseline
        from planner.bench.bench import before_of
        from planner.bench.machine import this_machine

        if self._before is None:
            path = self.baseline
            known = None if path is None else read_baseline(path)
            self._before = before_of(known, path, this_machine())
        return self._before

    def run(self, case: "Case") -> "Result":
        """Run one case."""
        from planner.bench.pool import Worker, source_root, worker_command
        from planner.bench.suite import prepared, run_case

        folder = prepared(Path(self._scratch.name))
        if self._worker is None:
            self._worker = Worker(worker_command(), source_root())
            self._worker.warm_up()
        result = run_case(case, self._worker, folder)
        self.results.append(result)
        self.files[case.name] = case.path
        return result

    def verdict(self) -> "Verdict":
        """Return the verdict on what has run."""
        from planner.bench.machine import this_machine
        from planner.bench.verdict import Verdict, reached_verdict

        before, origin = self.before()
        return Verdict(
            results=tuple(self.results),
            findings=reached_verdict(self.results, before, origin=origin),
            machine=this_machine(),
            origin=origin,
            before=before,
            files=self.files,
            suite=self.suite,
            baseline=self.baseline,
        )

    def close(self) -> None:
        """End the worker and drop what it wrote."""
        if self._worker is not None:
            self._worker.close()
        self._scratch.cleanup()


_BENCH = pytest.StashKey[_Bench]()


class GateClosedError(Exception):
    """What blocks, as text."""


class CaseFile(pytest.File):
    """A case file; it holds one test."""

    def collect(self) -> Iterable["CaseItem"]:
        """Return the case, if it has a wanted tag."""
        from planner.bench.case import read_case
        from planner.errors import InputError

        tags = self.config.stash[_BENCH].tags
        try:
            case = read_case(self.path)
        except InputError as error:
            raise self.CollectError(str(error)) from None
        if not tags or set(tags) & set(case.tags):
            yield CaseItem.from_parent(self, name=case.name, case=case)


class CaseItem(pytest.Item):
    """One case; fails if a rule blocks it."""

    def __init__(self, *, case: "Case", **given: Any) -> None:
        super().__init__(**given)
        self._case = case

    def runtest(self) -> None:
        """Run the case and judge it."""
        from planner.bench.rules import judge

        bench = self.config.stash[_BENCH]
        before, _ = bench.before()
        result = bench.run(self._case)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        found = judge(result, before.get(result.name))
        self.add_report_section("call", "placement", _lines(found))
        blocking = [each for each in found if each.level == "block"]
        if blocking:
            raise GateClosedError(_lines(blocking))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Say what blocks, without a traceback."""
        if isinstance(excinfo.value, GateClosedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the case is."""
        return self.path, 0, f"placement case {self.name}"


class SuiteItem(pytest.Item):
    """The rule about all cases together."""

    def runtest(self) -> None:
        """Judge the suite by what ran in this process."""
        from planner.bench.rules import judge_suite

        bench = self.config.stash[_BENCH]
        cases = [item for item in self.session.items if isinstance(item, CaseItem)]
        if len(bench.results) < len(cases):
            pytest.skip("not all cases ran in this process")
        found = judge_suite(bench.results, bench.before()[0])
        if any(each.level == "block" for each in found):
            raise GateClosedError(_lines(found))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Say what blocks, without a traceback."""
        if isinstance(excinfo.value, GateClosedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return where the suite is."""
        return self.config.stash[_BENCH].suite, 0, "placement suite"


def _lines(found: Iterable[Any]) -> str:
    return "\n".join(
        f"{each.level}  {each.rule}: {each.text}"
        + (f"\n  why: {each.why}" if each.why else "")
        for each in found
    )
