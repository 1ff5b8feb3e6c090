"""GitHub annotations: one workflow command per finding that blocks or warns."""

from pathlib import Path

from planner.bench.findings import Finding
from planner.bench.verdict import Verdict

COMMANDS = {"block": "error", "warn": "warning"}


def annotations(verdict: Verdict) -> list[str]:
    """Return the lines that make GitHub mark the case files."""
    return [
        annotation(finding, verdict.files.get(finding.case))
        for finding in verdict.findings
        if finding.level in COMMANDS
    ]


def annotation(finding: Finding, file: Path | None) -> str:
    """Return one workflow command, its text escaped."""
    place = f" file={_property(_shown(file))},line=1," if file is not None else " "
    title = f"{finding.case or 'suite'} {finding.rule}"
    why = f"\n{finding.why}" if finding.why else ""
    command = COMMANDS[finding.level]
    return f"::{command}{place}title={_property(title)}::{_text(finding.text + why)}"


def _shown(file: Path) -> str:
    """GitHub wants paths from the root of the checkout, where it runs commands."""
    here = Path.cwd()
    absolute = file.resolve()
    if absolute.is_relative_to(here):
        return absolute.relative_to(here).as_posix()
    return file.as_posix()


def _text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _text(text).replace(":", "%3A").replace(",", "%2C")
