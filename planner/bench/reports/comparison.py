"""Two plans compared, for every reader."""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from planner.bench.findings import amount, percent
from planner.bench.gate import Comparison, LegChange
from planner.bench.reports.github import COMMANDS, annotation
from planner.bench.reports.junit import xml

MOST_LEGS = 5


def comparison_text(found: Comparison) -> str:
    """Return the verdict first, then what changed and where."""
    lines = [headline(found)]
    for finding in found.findings:
        lines.append(f"  {finding.level:5}  {finding.rule}: {finding.text}")
        if finding.why:
            lines.append(f"         why: {finding.why}")
    if found.legs and found.objective.startswith("link_time"):
        lines.append("  slower on the planning part:")
        lines += [f"    {_leg(leg)}" for leg in found.legs[:MOST_LEGS]]
        if len(found.legs) > MOST_LEGS:
            lines.append(f"    … and {len(found.legs) - MOST_LEGS} more")
    lines += [f"  chosen differently: {text}" for text in found.chosen]
    if found.exit_code:
        lines.append(f"  to allow more: planner gate {_again(found)}")
    return "\n".join(lines)


def headline(found: Comparison) -> str:
    """Return whether NEW may replace OLD."""
    if found.broken:
        return (
            f"gate closed: {found.new} does not verify ({len(found.broken)} findings)"
        )
    word = "closed" if found.exit_code else "open"
    changes = ", ".join(f"{part.part} {percent(part.change)}" for part in found.parts)
    return f"gate {word}: {found.objective} of {found.new}: {changes}"


def comparison_markdown(found: Comparison) -> str:
    """Return a Markdown summary."""
    lines = [f"### {headline(found)}", "", "| part | old | new | change |"]
    lines.append("|---|--:|--:|--:|")
    for part in found.parts:
        cells = (
            part.part,
            amount(part.old, found.unit),
            amount(part.new, found.unit),
            percent(part.change),
        )
        lines.append("| " + " | ".join(cells) + " |")
    lines.append("")
    marks = {"block": "❌", "warn": "⚠️"}
    lines += [
        f"- {marks[each.level]} **{each.rule}**: {each.text}"
        + (f" — {each.why}" if each.why else "")
        for each in found.findings
        if each.level in marks
    ]
    lines += [f"- slower: {_leg(leg)}" for leg in found.legs[:MOST_LEGS]]
    lines += [f"- chosen differently: {text}" for text in found.chosen]
    return "\n".join(lines).rstrip() + "\n"


def comparison_junit(found: Comparison) -> str:
    """Return JUnit XML: one test for the verifier, one per part."""
    root = Element("testsuites", name="placement")
    suite = SubElement(root, "testsuite", name="gate")
    for rule in ("verified", *(part.part for part in found.parts)):
        test = SubElement(suite, "testcase", classname="gate", name=rule, time="0")
        for finding in found.findings:
            if finding.rule == rule and finding.level == "block":
                failure = SubElement(test, "failure", message=finding.text)
                failure.set("type", rule)
                failure.text = finding.why or finding.text
                break
    return xml(root)


def comparison_annotations(found: Comparison) -> list[str]:
    """Return GitHub workflow commands that mark the new plan's file."""
    return [
        annotation(finding, Path(found.new))
        for finding in found.findings
        if finding.level in COMMANDS
    ]


def _leg(leg: LegChange) -> str:
    change = percent(leg.new_seconds / leg.old_seconds - 1) if leg.old_seconds else ""
    return (
        f"layer {leg.layer} {leg.leg}: {amount(leg.old_seconds, 's')} → "
        f"{amount(leg.new_seconds, 's')} {change} on {leg.new_link}"
    )


def _again(found: Comparison) -> str:
    worst = max((float(part.change) for part in found.parts), default=0.0)
    return f"{found.old} {found.new} --max-regress {100 * worst + 0.1:.1f}%"
