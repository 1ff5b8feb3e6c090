"""What a person reads in a terminal: one line per case, then what is wrong."""

from collections.abc import Iterable

from planner.bench.findings import Finding
from planner.bench.reports.lines import (
    COLUMNS,
    Row,
    accept_command,
    headline,
    rerun_command,
    row_of,
)
from planner.bench.result import Result
from planner.bench.verdict import Verdict

LEFT = (1, 7)
"""Columns that are text; the others are numbers and end at the right."""


def table(verdict: Verdict) -> str:
    """Return the run as text: cases, findings, verdict."""
    lines = [*case_lines(verdict), ""]
    for case in _with_something_to_say(verdict):
        lines.extend(_block(verdict, case))
    lines.append(headline(verdict))
    return "\n".join(lines)


def case_lines(verdict: Verdict) -> list[str]:
    """Return the head and one line per case, in columns."""
    rows = [row_of(verdict, result) for result in verdict.results]
    head = Row(word="", name=COLUMNS[0], cells=COLUMNS[1:])
    cells = [(row.word, row.name, *row.cells) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if index in LEFT or not index else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]


def finding_line(finding: Finding) -> str:
    """Return one finding as one line."""
    return f"{finding.level:5}  {finding.rule}: {finding.text}"


def progress_line(result: Result, done: int, total: int) -> str:
    """Return what is said while cases run."""
    seconds = f"{result.seconds:.1f} s" if result.seconds is not None else ""
    outcome = result.outcome.replace("_", " ")
    return f"[{done}/{total}] {result.name}: {outcome} {seconds}".rstrip()


def _with_something_to_say(verdict: Verdict) -> Iterable[str]:
    """Return the cases with findings above a note, gravest first; then the suite."""
    order = ("block", "warn", "gain")
    firsts = {
        case: verdict.of(case)[0].level
        for case in dict.fromkeys(each.case for each in verdict.findings)
    }
    told = [case for case, level in firsts.items() if level in order or not case]
    return sorted(told, key=lambda case: (not case, firsts[case], case))


def _block(verdict: Verdict, case: str) -> list[str]:
    found = [each for each in verdict.of(case) if each.level != "note" or not case]
    lines = [case or "the whole suite"]
    for finding in found:
        lines.append(f"  {finding_line(finding)}")
        if finding.why and finding.level != "note":
            lines.append(f"         why: {finding.why}")
    blocks = [each for each in found if each.level == "block"]
    if blocks and case:
        lines.append(f"         again:  {rerun_command(verdict, case)}")
        lines.append(f"         accept: {accept_command(verdict, case, blocks)}")
    lines.append("")
    return lines
