"""A run of the suite, judged: what every report is written from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.bench.findings import GATE_FAILED, Finding
from planner.bench.machine import Machine
from planner.bench.result import Result
from planner.bench.rules import Before, judge, judge_suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Results and findings.

    Attributes
    ----------
    origin
        What was compared with, as a reader calls it; empty for nothing.
    before
        The entry of each case that had one.
    files
        The case files, by case.
    suite, baseline
        The folder of cases and the baseline's file, for the commands that a report
        suggests.
    missing
        Cases of the baseline that the suite no longer has.
    """

    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    machine: Machine
    origin: str
    before: Mapping[str, Before]
    files: Mapping[str, Path]
    suite: Path
    baseline: Path | None = None
    seconds: float = 0.0

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that fail the gate."""
        return tuple(each for each in self.findings if each.level == "block")

    @property
    def exit_code(self) -> int:
        """0, or 7 if something blocks."""
        return GATE_FAILED if self.blocking else 0

    def of(self, case: str) -> list[Finding]:
        """Return the findings of one case, gravest first."""
        order = ("block", "warn", "gain", "note")
        found = [each for each in self.findings if each.case == case]
        return sorted(found, key=lambda each: order.index(each.level))

    def word(self, case: str) -> str:
        """Return how a case stands in one word."""
        result = next(each for each in self.results if each.name == case)
        if result.outcome == "skipped":
            return "skip"
        found = self.of(case)
        words = {"block": "BLOCK", "warn": "warn", "gain": "better"}
        if found and found[0].level in words:
            return words[found[0].level]
        return "new" if self.origin and case not in self.before else "ok"


def reached_verdict(
    results: Sequence[Result],
    before: Mapping[str, Before],
    *,
    removed: Sequence[str] = (),
    origin: str = "",
) -> tuple[Finding, ...]:
    """Return what the rules find about every case and about the suite."""
    found = [
        finding
        for result in results
        for finding in judge(result, before.get(result.name))
    ]
    if not origin:
        # Without a baseline "nothing to compare with" is no news.
        found = [finding for finding in found if finding.rule != "baseline"]
    found += [
        Finding(
            case=name,
            rule="inputs",
            level="warn",
            text=f"{origin} has this case, the suite does not",
            why="a case that is taken out guards nothing any more",
        )
        for name in removed
    ]
    return (*found, *judge_suite(results, before))
