"""What was checked, how often, and what was found broken."""

from collections import Counter
from dataclasses import dataclass

from planner.errors import VerificationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One kind of check and how many comparisons it made."""

    name: str
    comparisons: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationReport:
    """A verification that found nothing broken.

    ``not_checked`` says in sentences what was left alone.
    """

    checks: tuple[Check, ...]
    not_checked: tuple[str, ...]

    @property
    def comparisons(self) -> int:
        """Comparisons made in all."""
        return sum(check.comparisons for check in self.checks)


class Ledger:
    """Counts comparisons by kind and keeps a sentence for each that failed."""

    def __init__(self) -> None:
        self.findings: list[str] = []
        self.not_checked: list[str] = []
        self._made: Counter[str] = Counter()

    def made(self, kind: str, comparisons: int) -> None:
        """Record comparisons that held, or would have raised on their own."""
        self._made[kind] += comparisons

    def expect(self, kind: str, holds: bool, finding: str) -> None:
        """Record one comparison; ``finding`` says what is wrong if it fails."""
        self._made[kind] += 1
        if not holds:
            self.findings.append(finding)

    def equal(self, kind: str, where: str, claimed: object, found: object) -> None:
        """Record that the manifest's figure at ``where`` is what was found."""
        self.expect(
            kind,
            claimed == found,
            f"{where}: the manifest says {claimed}, counted again it is {found}",
        )

    def raise_findings(self) -> None:
        """Raise VerificationError if anything was found broken."""
        if self.findings:
            raise VerificationError(self.findings)

    def report(self) -> VerificationReport:
        """Return the report of a verification without findings."""
        return VerificationReport(
            checks=tuple(
                Check(name=name, comparisons=made) for name, made in self._made.items()
            ),
            not_checked=tuple(self.not_checked),
        )
