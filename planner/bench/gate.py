"""``planner gate OLD NEW``: may this plan replace that one?"""

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from planner import pipeline
from planner.bench.findings import GATE_FAILED, Finding, Level, amount, percent, share
from planner.errors import (
    ManifestError,
    UsageError,
    VerificationError,
)
from planner.manifest import Manifest, read_manifest
from planner.manifest.schema import Amount, ExactText, Record

PARTS = ("planning", "holdout", "both")
RULER = (
    "phase",
    "traffic",
    "selection",
    "objective",
    "layers",
    "link_classes",
    "homes",
    "endpoint",
    "routing",
    "precision",
    "message_bytes",
    "holdout",
)
"""Options that decide what a number means; they must be equal."""
EFFORT = ("strategy", "time_limit", "gap", "threads", "seed", "plan_for")
"""Options that decide how a plan was found; they may differ."""


class PartChange(Record):
    """The objective of both plans on one part."""

    part: str
    old: Amount
    new: Amount
    old_exact: ExactText
    new_exact: ExactText

    @property
    def change(self) -> Fraction:
        """(new − old) / old; 1 where old is 0 and new is not."""
        old, new = Fraction(self.old_exact), Fraction(self.new_exact)
        if old == 0:
            return Fraction(0 if new == 0 else 1)
        return (new - old) / old


class LegChange(Record):
    """The busiest link of one leg of one layer, in both plans."""

    layer: int
    leg: str
    old_seconds: Amount
    new_seconds: Amount
    new_link: str


class Comparison(Record):
    """Two plans of the same inputs, compared.

    ``legs`` are those that got slower, the worst first; ``chosen`` says which other
    options differ.
    """

    old: str
    new: str
    objective: str
    unit: str
    allowed: float
    parts: tuple[PartChange, ...]
    legs: tuple[LegChange, ...]
    chosen: tuple[str, ...]
    broken: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """0, 6 if NEW is wrong, 7 if it is worse."""
        if self.broken:
            return VerificationError.exit_code
        blocked = any(each.level == "block" for each in self.findings)
        return GATE_FAILED if blocked else 0


def parse_share(text: str) -> Fraction:
    """Return the share that ``1%`` or ``0.01`` stands for.

    Raises
    ------
    UsageError
        If it is neither, or not from 0 to 100 %.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(\s*%)?", text.strip())
    share = Fraction(-1)
    if match is not None:
        share = Fraction(match[1]) / (100 if match[2] else 1)
    if not 0 <= share <= 1:
        raise UsageError(
            f"--max-regress {text!r} is no share from 0 to 1: give 1% or 0.01"
        )
    return share


def compare(old: Path, new: Path, *, allowed: Fraction, on: str) -> Comparison:
    """Compare two manifests and verify the new one.

    Raises
    ------
    ManifestError
        If one cannot be read, or they are not of the same inputs.
    UsageError
        For a part that does not exist.
    """
    if on not in PARTS:
        raise UsageError(f"--on {on!r}: choose from {', '.join(PARTS)}")
    before, after = read_manifest(old), read_manifest(new)
    check_comparable(before, after, new)
    parts = tuple(_parts(before, after, on))
    broken = tuple(_broken(new))
    legs = tuple(_legs(before, after))
    unit, shown = after.objective.unit, (old.name, new.name)
    return Comparison(
        old=str(old),
        new=str(new),
        objective=f"{after.objective.name} ({after.objective.layers})",
        unit=unit,
        allowed=float(allowed),
        parts=parts,
        legs=legs,
        chosen=tuple(_chosen(before, after)),
        broken=broken,
        findings=(
            *(_verified(shown[1], text) for text in broken),
            *(_judged(part, allowed, unit, shown) for part in parts),
            *_yardsticks(before, after),
        ),
    )


def check_comparable(old: Manifest, new: Manifest, where: Path) -> None:
    """Refuse plans whose objectives do not mean the same.

    Raises
    ------
    ManifestError
        Naming every input and option that differs.
    """
    differs = [
        f"{name} ({was.name} {was.sha256[:12]}…, {now.name} {now.sha256[:12]}…)"
        for name, was, now in (
            ("topology", old.inputs.topology, new.inputs.topology),
            ("model", old.inputs.model, new.inputs.model),
        )
        if was.sha256 != now.sha256
    ]
    traces = [
        [(item.sha256, item.workload, item.weight) for item in each.inputs.traces]
        for each in (old, new)
    ]
    if traces[0] != traces[1]:
        differs.append(f"trace ({_short(traces[0])}, {_short(traces[1])})")
    options = _values(old), _values(new)
    differs += [
        f"option {name} ({options[0].get(name)}, {options[1].get(name)})"
        for name in RULER
        if options[0].get(name) != options[1].get(name)
    ]
    if differs:
        raise ManifestError(
            f"is not a plan of the same inputs: {'; '.join(differs)}",
            where=str(where),
            fix="plan again with the inputs and options of the other plan, or score "
            "both on one trace with planner evaluate",
        )


def _short(traces: list[tuple[str, str | None, str]]) -> str:
    return ", ".join(
        f"{digest[:12]}…{f'#{workload}' if workload else ''}"
        for digest, workload, _ in traces
    )


def _values(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.inputs.options.values


def _chosen(old: Manifest, new: Manifest) -> list[str]:
    was, now = _values(old), _values(new)
    return [
        f"{name}: {was.get(name)} → {now.get(name)}"
        for name in sorted({*was, *now} - {*RULER, *EFFORT})
        if was.get(name) != now.get(name)
    ]


def _parts(old: Manifest, new: Manifest, on: str) -> list[PartChange]:
    offered = [("planning", old.objective, new.objective)]
    if old.holdout is not None and new.holdout is not None:
        offered.append(("holdout", old.holdout.objective, new.holdout.objective))
    elif on != "planning":
        raise UsageError(f"--on {on}: {old.holdout_reason or new.holdout_reason}")
    return [
        PartChange(
            part=name,
            old=was.value,
            new=now.value,
            old_exact=was.value_exact,
            new_exact=now.value_exact,
        )
        for name, was, now in offered
        if on in (name, "both")
    ]


def _broken(new: Path) -> list[str]:
    try:
        pipeline.verify(new)
    except VerificationError as error:
        return error.findings
    return []


def _verified(name: str, text: str) -> Finding:
    why = "the plan breaks a rule or a claim of its own"
    return Finding(case=name, rule="verified", level="block", text=text, why=why)


def _judged(
    part: PartChange, allowed: Fraction, unit: str, shown: tuple[str, str]
) -> Finding:
    was = amount(Fraction(part.old_exact), unit)
    now = amount(Fraction(part.new_exact), unit)
    change = part.change
    text = f"{now}, {was} in {shown[0]}: {percent(change)}, {share(allowed)} allowed"
    level: Level = "gain" if change < 0 else "note"
    if change > allowed:
        level = "block"
    return Finding(case=shown[1], rule=part.part, level=level, text=text)


def _yardsticks(old: Manifest, new: Manifest) -> list[Finding]:
    """Fixed plans tell whether both manifests count alike."""
    found = []
    for name in sorted({*old.baselines} & {*new.baselines}):
        was, now = old.baselines[name].objective, new.baselines[name].objective
        if was is None or now is None or _shape(old) != _shape(new):
            continue
        if was.value_exact != now.value_exact:
            unit = now.unit
            text = f"the plan of {name} counts {amount(now.value, unit)} in the new "
            text += f"manifest and {amount(was.value, unit)} in the old one"
            why = "its slots follow from the inputs: two versions of the planner count "
            why += "differently; plan the old one again"
            found.append(
                Finding(case="", rule="yardstick", level="warn", text=text, why=why)
            )
    return found[:1]


def _shape(manifest: Manifest) -> tuple[int, int]:
    """Return EP group and slots per GPU: what the baselines' plans depend on."""
    return manifest.groups.ep, len(manifest.layers[0].slots[0])


def _legs(old: Manifest, new: Manifest) -> list[LegChange]:
    """Return the legs whose busiest link takes longer than before."""
    was, now = _busiest(old), _busiest(new)
    slower = [
        LegChange(
            layer=key[0],
            leg=key[1],
            old_seconds=was[key][0],
            new_seconds=now[key][0],
            new_link=now[key][1],
        )
        for key in now
        if key in was and now[key][0] > was[key][0]
    ]
    return sorted(
        slower, key=lambda each: (each.old_seconds - each.new_seconds, each.layer)
    )


def _busiest(manifest: Manifest) -> dict[tuple[int, str], tuple[float, str]]:
    best: dict[tuple[int, str], tuple[float, str]] = {}
    for layer in manifest.prediction.layers:
        for link in layer.busiest:
            key = layer.layer, link.leg
            if link.seconds > best.get(key, (-1.0, ""))[0]:
                best[key] = link.seconds, link.link
    return best
