"""The baseline ``placement-baseline/1``: the best that each case has reached.

An update only ever tightens. Anything worse has to be accepted, case by case and
with a reason, and the file keeps that reason.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from planner.bench.machine import Machine
from planner.bench.result import Result, ratio_to_eplb
from planner.errors import InputError
from planner.manifest import pretty_json, write_text_atomically
from planner.manifest.schema import Amount, Digest, ExactText, Record

SCHEMA: Literal["placement-baseline/1"] = "placement-baseline/1"
PROOF_RANK = {"feasible": 0, "solver_claimed": 1, "proven_optimal": 2}


class Entry(Record):
    """What a case has reached.

    ``digest`` is of the case; ``certificate`` of the bound's certificate. The
    ``yardsticks`` are the exact values of the baselines' plans, which no change of
    a strategy can move.
    """

    digest: Digest
    outcome: str
    status: str | None = None
    exact: ExactText | None = None
    unit: str | None = None
    bound: Amount | None = None
    certificate: Digest | None = None
    ratio_eplb: Amount | None = None
    unseen: Amount | None = None
    yardsticks: dict[str, ExactText] = Field(default_factory=dict)
    cpu_seconds: Amount | None = None

    @property
    def value(self) -> Fraction | None:
        """The objective, exactly."""
        return None if self.exact is None else Fraction(self.exact)

    @property
    def proven_bound(self) -> Fraction | None:
        """The bound as a number to compute with."""
        return None if self.bound is None else Fraction(self.bound)


class Acceptance(Record):
    """A change for the worse that a person took, and why."""

    case: str
    reason: str = Field(min_length=1)
    date: str
    before: Entry | None
    after: Entry | None


class Baseline(Record):
    """The whole file; ``machine`` is where its times were taken."""

    schema_name: Literal["placement-baseline/1"] = Field(default=SCHEMA, alias="schema")
    machine: Machine | None = None
    cases: dict[str, Entry] = Field(default_factory=dict)
    history: tuple[Acceptance, ...] = ()


def entry_of(result: Result) -> Entry:
    """Return what a baseline keeps of a result."""
    reached = result.reached
    if reached is None:
        return Entry(digest=result.digest, outcome=result.outcome)
    return Entry(
        digest=result.digest,
        outcome=result.outcome,
        status=reached.status,
        exact=reached.exact,
        unit=reached.unit,
        bound=reached.bound,
        certificate=reached.certificate,
        ratio_eplb=ratio_to_eplb(reached),
        unseen=reached.unseen.value if reached.unseen else None,
        yardsticks={name: base.exact for name, base in reached.yardsticks.items()},
        cpu_seconds=result.cpu_seconds,
    )


def tightened(old: Entry, new: Entry) -> Entry:
    """Return ``old`` with whatever ``new`` has better: objective, bound, proof."""
    if old.digest != new.digest or old.outcome != "plan" or new.outcome != "plan":
        return old
    changes: dict[str, Any] = {
        # A baseline that was not known before is one more yardstick.
        "yardsticks": {**new.yardsticks, **old.yardsticks}
    }
    if old.value is not None and new.value is not None and new.value < old.value:
        for name in ("exact", "ratio_eplb", "unseen", "cpu_seconds"):
            changes[name] = getattr(new, name)
    if (new.bound or 0.0) > (old.bound or 0.0) or old.bound is None:
        changes |= {"bound": new.bound, "certificate": new.certificate}
    if PROOF_RANK.get(new.status or "", 0) > PROOF_RANK.get(old.status or "", 0):
        changes["status"] = new.status
    return old.model_copy(update=changes)


def updated(
    baseline: Baseline, results: Iterable[Result], machine: Machine
) -> Baseline:
    """Return the baseline with new cases added and better results taken over."""
    cases = dict(baseline.cases)
    for result in results:
        if result.outcome == "skipped":
            continue
        new = entry_of(result)
        old = cases.get(result.name)
        cases[result.name] = new if old is None else tightened(old, new)
    return baseline.model_copy(
        update={
            "cases": dict(sorted(cases.items())),
            "machine": baseline.machine or machine,
        }
    )


def accepted(
    baseline: Baseline,
    results: Mapping[str, Result],
    names: Sequence[str],
    reason: str,
    date: str,
) -> Baseline:
    """Return the baseline with the results of ``names`` taken, worse or not.

    A case without a result is taken out. Each change is kept in the history.
    """
    cases, history = dict(baseline.cases), list(baseline.history)
    for name in names:
        before = cases.pop(name, None)
        after = entry_of(results[name]) if name in results else None
        if after is not None:
            cases[name] = after
        if before != after:
            history.append(
                Acceptance(
                    case=name, reason=reason, date=date, before=before, after=after
                )
            )
    return baseline.model_copy(
        update={"cases": dict(sorted(cases.items())), "history": tuple(history)}
    )


def read_baseline(path: Path) -> Baseline:
    """Read a baseline strictly.

    Raises
    ------
    InputError
        If the file is missing or is no baseline; names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if json.loads(text).get("schema") != SCHEMA:
            raise InputError(f"must be {SCHEMA!r}", where=f"{path} /schema")
        return Baseline.model_validate_json(text)
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            fix="write one with planner bench --baseline FILE --update-baseline",
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in problem["loc"])
        raise InputError(problem["msg"], where=f"{path} {pointer}") from None
    except (ValueError, AttributeError) as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from None


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write a baseline; equal baselines are equal files."""
    data = baseline.model_dump(mode="json", by_alias=True)
    for entry in data["cases"].values():
        for name in [name for name, value in entry.items() if value is None]:
            del entry[name]
    write_text_atomically(pretty_json(data), path)
