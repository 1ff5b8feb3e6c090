"""What the gate says: findings, and how amounts are written for people."""

from fractions import Fraction
from typing import Literal

from planner.manifest.schema import Record

Level = Literal["block", "warn", "gain", "note"]
GATE_FAILED = 7
"""Exit code of a gate that blocks (rule 32)."""
NEVER_ACCEPTED = ("verified", "truth", "question", "eplb")
"""Rules that say that a plan is wrong, not that it is worse."""


class Finding(Record):
    """One thing found about a case, or about the suite (``case`` is empty).

    ``rule`` names the family of the rule; ``text`` says what happened and by how
    much; ``why`` why that matters.
    """

    case: str
    rule: str
    level: Level
    text: str
    why: str = ""


def percent(change: Fraction | float) -> str:
    """Return a relative change with its sign, fine enough to be seen."""
    return f"+{share(change)}" if change >= 0 else f"-{share(-change)}"


def share(part: Fraction | float) -> str:
    """Return a share >= 0 in percent, fine enough to be seen."""
    value = 100 * float(part)
    for digits in (2, 4, 6):
        if value >= 10**-digits or value == 0:
            return f"{value:.{digits}f} %"
    return f"{value:.1e} %"


def amount(value: Fraction | float, unit: str | None) -> str:
    """Return a value with its unit, seconds in a readable size."""
    number = float(value)
    if unit != "s":
        return f"{number:,.6g} {unit or ''}".rstrip()
    scales = ((1.0, "s"), (1e3, "ms"), (1e6, "µs"))
    factor, name = next(
        (scale for scale in scales if number * scale[0] >= 1), scales[-1]
    )
    return f"{number * factor:.5g} {name}"
