"""Every error the planner raises on purpose.

::

    PlannerError                     exit  HTTP
    ├── UsageError                      2   400   flags that do not go together
    ├── InputError                      3   422   a file or value breaks a rule
    │   ├── TopologyError
    │   ├── ModelError
    │   ├── TraceError
    │   └── ManifestError
    ├── InfeasibleError                 4   409   proven: no plan can exist
    ├── LimitError                      5   504   limit reached without a plan
    ├── VerificationError               6   500   a plan breaks a rule or claim
    │   └── ReplayMismatch                        counted and predicted differ
    ├── WorldError                      5   500   a rank is lost, or never came
    └── SolverError                     1   500   the solver itself failed

A message names where, the value, the rule and the way out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field


class PlannerError(Exception):
    """Base of all errors raised on purpose; carries the exit code and status."""

    exit_code = 1
    http_status = 500


class UsageError(PlannerError):
    """Options that do not go together."""

    exit_code = 2
    http_status = 400


class InputError(PlannerError):
    """An input breaks a rule.

    Parameters
    ----------
    rule
        What must hold, as a sentence fragment: "must be finite and > 0".
    where
        File and place in it: a JSON pointer or a column name.
    value
        The offending value; shown with ``repr`` and cut at 80 characters.
    fix
        The way out, as an imperative: "give every edge a bandwidth_gbs".
    """

    exit_code = 3
    http_status = 422

    def __init__(
        self, rule: str, *, where: str = "", value: object = None, fix: str = ""
    ) -> None:
        self.rule, self.where, self.value, self.fix = rule, where, value, fix
        shown = "" if value is None else _short(value)
        head = " ".join(part for part in (f"{where}:" if where else "", shown) if part)
        text = f"{head} {rule}" if head else rule
        super().__init__(f"{text}; {fix}" if fix else text)


class TopologyError(InputError):
    """A cluster description breaks a rule."""


class ModelError(InputError):
    """A model description breaks a rule."""


class TraceError(InputError):
    """A routing trace breaks a rule or does not fit the model."""


class ManifestError(InputError):
    """A manifest does not fit its schema, or its inputs have another digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A change after which the same check was made again.

    Attributes
    ----------
    what
        The change in words, with the value it replaces.
    options
        Options to change, by name; empty where hardware is what helps.
    leaves
        Causes that the change does not remove; none: it passes the check.
    """

    what: str
    options: Mapping[str, object] = field(default_factory=dict)
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One reason why no plan can exist.

    Attributes
    ----------
    name
        Of the family: ``memory``, ``slots``, …
    says
        The reason with its numbers, for a reader.
    numbers
        The same numbers by name; bytes are whole.
    repairs
        What would remove it, the cheapest first.
    """

    name: str
    says: str
    numbers: Mapping[str, object] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()


class InfeasibleError(PlannerError):
    """No plan can exist: proven, with the numbers and what would repair it.

    Parameters
    ----------
    message
        All of it in one text; with causes, their words and the cheapest repair.
    causes
        Every cause that was found; none where only a solver's proof is at hand.
    """

    exit_code = 4
    http_status = 409

    def __init__(self, message: str, causes: Sequence[Cause] = ()) -> None:
        self.causes = tuple(causes)
        super().__init__(message)


def infeasible_data(error: InfeasibleError) -> dict[str, object]:
    """Return an infeasibility as JSON values: its status, words and causes."""
    causes = [
        {
            **asdict(cause),
            "repairs": [
                {**asdict(repair), "leaves": list(repair.leaves)}
                for repair in cause.repairs
            ],
        }
        for cause in error.causes
    ]
    return {"status": "infeasible", "detail": str(error), "causes": causes}


class LimitError(PlannerError):
    """A limit was reached before any plan was found."""

    exit_code = 5
    http_status = 504


class VerificationError(PlannerError):
    """A manifest breaks a rule or a claim of its own.

    Parameters
    ----------
    findings
        One sentence per broken rule or claim; at least one.
    """

    exit_code = 6
    http_status = 500

    def __init__(self, findings: list[str]) -> None:
        self.findings = findings
        more = f" (and {len(findings) - 5} more)" if len(findings) > 5 else ""
        super().__init__("; ".join(findings[:5]) + more)

    def __reduce__(self) -> tuple[type["VerificationError"], tuple[list[str]]]:
        """Travel between processes with all findings."""
        return type(self), (self.findings,)


class ReplayMismatch(VerificationError):
    """What the replay moved is not what the manifest predicted."""


class WorldError(PlannerError):
    """A rank of a distributed run is lost, or never came.

    Parameters
    ----------
    message
        Which rank, and what is known of its end.
    exit_code
        That of the rank which failed, where it could still say so.
    """

    exit_code = 5
    http_status = 500

    def __init__(self, message: str, exit_code: int = 5) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class SolverError(PlannerError):
    """The solver itself failed."""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
