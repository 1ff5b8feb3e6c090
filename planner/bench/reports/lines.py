"""One row per case: the figures that every report shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from planner.bench.findings import NEVER_ACCEPTED, Finding, amount, percent
from planner.bench.result import Result, best_eplb
from planner.bench.suite import BASELINE, DEFAULT_SUITE
from planner.bench.verdict import Verdict

COLUMNS = ("case", "objective", "change", "gap", "EPLB", "unseen", "status", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case as text; ``cells`` are in the order of ``COLUMNS`` after the name."""

    word: str
    name: str
    cells: tuple[str, ...]


def row_of(verdict: Verdict, result: Result) -> Row:
    """Return the row of one case."""
    reached, old = result.reached, verdict.before.get(result.name)
    status = result.outcome.replace("_", " ")
    cells = ("-", "-", "-", "-", "-", status)
    if reached is not None:
        was = old.entry.value if old is not None else None
        best = best_eplb(reached.yardsticks, rival=False)
        unseen = reached.unseen.ratio_eplb if reached.unseen else None
        cells = (
            amount(reached.value, reached.unit),
            _change(reached.value, was),
            "-" if reached.gap is None else f"{100 * max(0.0, reached.gap):.2f} %",
            f"{float(reached.value / best[1]):.3f}" if best and best[1] else "-",
            "-" if unseen is None else f"{unseen:.3f}",
            reached.status.replace("_", " "),
        )
    seconds = "-" if result.cpu_seconds is None else f"{result.cpu_seconds:.1f} s"
    return Row(
        word=verdict.word(result.name), name=result.name, cells=(*cells, seconds)
    )


def _change(value: Fraction, was: Fraction | None) -> str:
    if was is None:
        return "-"
    if value == was:
        return "="
    return percent((value - was) / was) if was else "from 0"


def counts(verdict: Verdict) -> str:
    """Return how many cases stand how: ``34 ok, 1 better, 1 BLOCK``."""
    words = [verdict.word(result.name) for result in verdict.results]
    order = ("ok", "better", "new", "skip", "warn", "BLOCK")
    return ", ".join(f"{words.count(word)} {word}" for word in order if word in words)


def headline(verdict: Verdict) -> str:
    """Return the sentence that says whether the gate is open."""
    against = f" against {verdict.origin}" if verdict.origin else ", no baseline"
    number = len(verdict.results)
    cases = "1 case" if number == 1 else f"{number} cases"
    how = f"{cases}{against}: {counts(verdict)}"
    return f"gate closed: {how}" if verdict.blocking else f"gate open: {how}"


def accept_command(verdict: Verdict, case: str, blocks: Sequence[Finding]) -> str:
    """Return the command that takes a result as it is, or why there is none."""
    if any(each.rule in NEVER_ACCEPTED for each in blocks):
        return "not possible: the plan is wrong, not only worse"
    if verdict.baseline is None:
        return "not possible: there is no baseline to keep it in"
    return f'{rerun_command(verdict, case)} --accept {case} --reason "…"'


def rerun_command(verdict: Verdict, case: str) -> str:
    """Return the command that runs one case again."""
    words = ["planner bench"]
    if verdict.suite != DEFAULT_SUITE:
        words.append(f"--suite {verdict.suite}")
    if verdict.baseline not in (None, verdict.suite.parent / BASELINE):
        words.append(f"--baseline {verdict.baseline}")
    return " ".join([*words, f"--case {case}"])
