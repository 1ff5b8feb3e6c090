"""A Markdown summary, as a pull request or a job summary shows it."""

from planner.bench.reports.lines import COLUMNS, headline, row_of
from planner.bench.verdict import Verdict


def markdown(verdict: Verdict) -> str:
    """Return the verdict, what blocks or warns, and the table of cases."""
    lines = [f"### Placement quality: {headline(verdict)}", ""]
    for finding in verdict.findings:
        if finding.level in ("block", "warn") or (not finding.case):
            mark = {"block": "❌", "warn": "⚠️"}.get(finding.level, "•")
            name = f"`{finding.case}` " if finding.case else ""
            why = f" — {finding.why}" if finding.why else ""
            lines.append(f"- {mark} {name}**{finding.rule}**: {finding.text}{why}")
    if lines[-1]:
        lines.append("")
    lines.append("| | " + " | ".join(COLUMNS) + " |")
    lines.append("|---|---" + "|--:" * (len(COLUMNS) - 1) + "|")
    for result in verdict.results:
        row = row_of(verdict, result)
        cells = " | ".join((row.name, *row.cells))
        word = f"**{row.word}**" if row.word == "BLOCK" else row.word
        lines.append(f"| {word} | {cells} |")
    machine = verdict.machine
    versions = ", ".join(f"{name} {text}" for name, text in machine.versions.items())
    lines += [
        "",
        f"{machine.system} {machine.machine}, {machine.cores} cores, Python "
        f"{machine.python}; {versions}; {verdict.seconds:.0f} s",
        "",
    ]
    return "\n".join(lines)
