"""``planner bench`` and ``planner gate``: placement quality that cannot slip."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from planner.bench.bench import BenchOptions, accept, bench, update
from planner.bench.findings import Finding
from planner.bench.gate import Comparison, compare, parse_share
from planner.bench.reports.comparison import (
    comparison_annotations,
    comparison_junit,
    comparison_markdown,
    comparison_text,
)
from planner.bench.reports.github import annotations
from planner.bench.reports.junit import junit
from planner.bench.reports.markdown import markdown
from planner.bench.reports.table import progress_line, table
from planner.bench.result import Result
from planner.bench.suite import DEFAULT_SUITE, Runner
from planner.bench.verdict import Verdict
from planner.cli import options as flags
from planner.errors import UsageError
from planner.manifest import pretty_json, write_text_atomically

Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML here.")]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", help="Write a Markdown summary here.")
]
Github = Annotated[bool, typer.Option("--github", help="Print GitHub annotations.")]


def run_bench(
    suite: Annotated[Path, typer.Option(help="Folder of case files.")] = DEFAULT_SUITE,
    tags: Annotated[
        str, typer.Option(help="Run cases with one of these tags: A,B; '' for all.")
    ] = "fast",
    case: Annotated[
        list[str] | None, typer.Option("--case", help="Run this case; repeat.")
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Compare with this file; default: baseline.json beside."),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Take over what is better.")
    ] = False,
    accept_cases: Annotated[
        list[str] | None,
        typer.Option("--accept", help="Take over this case though worse; repeat."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why --accept is right.")] = "",
    against: Annotated[
        str | None, typer.Option(help="Compare with this git revision instead.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Cases at once; 0: cores.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for results and plans.")] = Path(
        "out/bench"
    ),
    junit_file: Junit = None,
    github: Github = False,
    markdown_file: Markdown = None,
    output_format: flags.Format = "human",
) -> None:
    """Run benchmark cases and hold them against what they reached before."""
    flags.check_format(output_format)
    wanted = BenchOptions(
        suite=suite,
        tags=tuple(tag.strip() for tag in tags.split(",") if tag.strip()),
        names=tuple(case or ()),
        baseline=baseline,
        new_baseline=update_baseline or bool(accept_cases),
        against=against,
    )
    if (update_baseline or accept_cases) and against is not None:
        raise UsageError("--against has no file: leave out --update-baseline, --accept")
    verdict = bench(wanted, Runner(folder=out, jobs=jobs), _tell)
    if accept_cases or update_baseline:
        verdict = _keep(verdict, update_baseline, accept_cases or [], reason)
    _write(junit_file, junit(verdict))
    _write(markdown_file, markdown(verdict))
    if output_format == "json":
        print(pretty_json(_data(verdict)), end="")
    else:
        print(table(verdict))
    for line in annotations(verdict) if github else ():
        print(line)
    print(f"results and plans: {out}", file=sys.stderr)
    raise typer.Exit(verdict.exit_code)


def gate(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The plan in use.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The plan proposed.")],
    max_regress: Annotated[
        str, typer.Option("--max-regress", help="Worse by this much is allowed: 1%.")
    ] = "1%",
    on: Annotated[str, typer.Option(help="planning, holdout or both.")] = "planning",
    junit_file: Junit = None,
    github: Github = False,
    markdown_file: Markdown = None,
    output_format: flags.Format = "human",
) -> None:
    """Refuse a plan that is worse than the one in use; NEW is verified."""
    flags.check_format(output_format)
    found = compare(old, new, allowed=parse_share(max_regress), on=on)
    _write(junit_file, comparison_junit(found))
    _write(markdown_file, comparison_markdown(found))
    if output_format == "json":
        print(pretty_json(_comparison_data(found)), end="")
    else:
        print(comparison_text(found))
    for line in comparison_annotations(found) if github else ():
        print(line)
    raise typer.Exit(found.exit_code)


def _keep(
    verdict: Verdict, update_baseline: bool, names: list[str], reason: str
) -> Verdict:
    path = verdict.baseline
    if path is None:
        raise UsageError("name the baseline's file with --baseline")
    if names:
        verdict = accept(verdict, path, names, reason)
        print(f"accepted into {path}: {', '.join(names)}", file=sys.stderr)
    if update_baseline:
        changed = update(verdict, path)
        what = ", ".join(changed) if changed else "nothing is better"
        print(f"baseline {path}: {what}", file=sys.stderr)
    return verdict


def _tell(ref: str, result: Result, done: int, total: int) -> None:
    where = f"{ref} " if ref else ""
    print(where + progress_line(result, done, total), file=sys.stderr, flush=True)


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        write_text_atomically(text, path)


def _data(verdict: Verdict) -> dict[str, object]:
    return {
        "open": not verdict.blocking,
        "compared_with": verdict.origin or None,
        "machine": verdict.machine.model_dump(mode="json"),
        "findings": _plain(verdict.findings),
        "results": [result.model_dump(mode="json") for result in verdict.results],
    }


def _comparison_data(found: Comparison) -> dict[str, object]:
    return found.model_dump(mode="json") | {"open": found.exit_code == 0}


def _plain(findings: tuple[Finding, ...]) -> list[dict[str, object]]:
    return [finding.model_dump(mode="json") for finding in findings]
