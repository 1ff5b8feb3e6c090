"""What came out of a case, and the file of results ``placement-bench/1``.

A result is read from the manifest's JSON and not through its schema: with
``--against`` another revision wrote it. Exact values are ``numerator/denominator``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from planner.bench.case import Case
from planner.bench.machine import Machine
from planner.errors import InputError
from planner.manifest import canonical_json, digest_of_json, write_text_atomically
from planner.manifest.schema import Amount, Count, Digest, ExactText, Record
from planner.options import SolveOptions

SCHEMA: Literal["placement-bench/1"] = "placement-bench/1"
EPLB = "eplb"
DOUBLED = "two copies of an expert on one GPU"
"""What a manifest notes of a published plan that is not legal (rule 29)."""
Outcome = Literal[
    "plan", "infeasible", "no_plan", "invalid", "error", "crashed", "timeout", "skipped"
]
ROUNDING = 1 + Fraction(1, 10**9)
CAP_FIGURES = {"imbalance_cap": "worst", "domain_imbalance_cap": "domain_worst"}


class Yardstick(Record):
    """The value of a plan that is not ours: always the same for a case."""

    exact: ExactText
    legal: bool
    keeps_caps: bool


class Layer(Record):
    """The busiest link of one class in one leg of one layer."""

    layer: Count
    leg: str
    link_class: str
    link: str
    tokens: Amount
    bytes: Amount
    seconds: Amount
    imbalance: Amount
    domain_imbalance: Amount
    origin: str


class Unseen(Record):
    """The plan on sequences it was not made from."""

    value: Amount
    ratio_eplb: Amount | None


class Metrics(Record):
    """Figures that are reported; the rules use none of them."""

    max_link_tokens: Amount
    inter_domain_bytes: Amount
    inter_domain_transfers: Amount
    memory_headroom: float
    redundant_slots: Count
    home_tokens_max_over_mean: Amount
    imbalance_mean: Amount
    imbalance_worst: Amount
    domain_imbalance_worst: Amount
    primal_integral: Amount | None


class Reached(Record):
    """A plan's figures.

    ``certificate`` is the digest of ``bound.certificate``; ``other_question`` says
    where the manifest's options are not those of the case; ``findings`` are the
    verifier's.
    """

    objective: str
    exact: ExactText
    unit: str
    status: str
    bound: Amount | None
    method: str | None
    of: str | None
    certificate: Digest | None
    gap: float | None
    findings: tuple[str, ...]
    other_question: tuple[str, ...]
    keeps_caps: bool
    yardsticks: dict[str, Yardstick]
    unseen: Unseen | None
    metrics: Metrics
    stopped: str
    layers: tuple[Layer, ...]

    @property
    def value(self) -> Fraction:
        """The objective on the planning part, exactly."""
        return Fraction(self.exact)

    @property
    def proven_bound(self) -> Fraction | None:
        """The bound as a number to compute with."""
        return None if self.bound is None else Fraction(self.bound)


class Result(Record):
    """One case, run once."""

    name: str
    family: str
    tags: tuple[str, ...]
    digest: Digest
    expect: str
    known_optimum: ExactText | None = None
    outcome: Outcome
    message: str = ""
    reached: Reached | None = None
    seconds: Amount | None = None
    cpu_seconds: Amount | None = None


def result_of(case: Case, reply: Mapping[str, Any], manifest: Path) -> Result:
    """Return the result of a case from its worker's reply and its manifest."""
    reached = None
    if reply["outcome"] == "plan":
        data = json.loads(manifest.read_text(encoding="utf-8"))
        reached = reached_of(case, data, reply["findings"])
    return Result(
        name=case.name,
        family=case.family,
        tags=case.tags,
        digest=case.digest,
        expect=case.expect,
        known_optimum=None if case.known_optimum is None else exact(case.known_optimum),
        outcome=reply["outcome"],
        message=reply.get("message", ""),
        reached=reached,
        seconds=reply.get("seconds"),
        cpu_seconds=reply.get("cpu_seconds"),
    )


def exact(value: Fraction) -> str:
    """Return ``numerator/denominator``."""
    return f"{value.numerator}/{value.denominator}"


def reached_of(
    case: Case, manifest: Mapping[str, Any], findings: Sequence[str]
) -> Reached:
    """Return a plan's figures from its manifest."""
    objective, bound = manifest["objective"], manifest["bound"] or {}
    certificate = bound.get("certificate")
    caps = _caps(case.options)
    relative = any(_is_relative(case.options.get(name)) for name in CAP_FIGURES)
    return Reached(
        objective=f"{objective['name']} ({objective['layers']})",
        exact=objective["value_exact"],
        unit=objective["unit"],
        status=manifest["status"],
        bound=bound.get("value"),
        method=bound.get("method"),
        of=bound.get("of"),
        certificate=None if certificate is None else digest_of_json(certificate),
        gap=manifest["gap"],
        findings=tuple(findings),
        other_question=tuple(_other_question(case.options, manifest)),
        keeps_caps=_keeps(manifest["imbalance"], caps),
        yardsticks={
            name: Yardstick(
                exact=base["objective"]["value_exact"],
                legal=not any(DOUBLED in note for note in base.get("notes", ())),
                # By layer a manifest says nothing of baselines.
                keeps_caps=_keeps(base["imbalance"], caps) and not relative,
            )
            for name, base in sorted(manifest["baselines"].items())
            if base.get("objective") is not None
        },
        unseen=_unseen(manifest["holdout"]),
        metrics=_metrics(manifest),
        stopped=manifest["termination"]["reason"],
        layers=tuple(_layers(manifest)),
    )


def best_eplb(
    yardsticks: Mapping[str, Yardstick], *, rival: bool
) -> tuple[str, Fraction] | None:
    """Return the best EPLB reading and its value.

    With ``rival`` only those a plan must beat: legal, and within the caps.
    """
    values = [
        (Fraction(base.exact), name)
        for name, base in yardsticks.items()
        if name.startswith(EPLB) and (not rival or (base.legal and base.keeps_caps))
    ]
    if not values:
        return None
    value, name = min(values)
    return name, value


def ratio_to_eplb(reached: Reached) -> float | None:
    """Return objective / the better EPLB's on the planning part."""
    best = best_eplb(reached.yardsticks, rival=False)
    return float(reached.value / best[1]) if best and best[1] else None


def _caps(options: Mapping[str, Any]) -> dict[str, Fraction]:
    """The max/mean the case allows, by the figure it limits.

    What is relative to baselines differs by layer: the verifier checks it.
    """
    return {
        figure: Fraction(options[name])
        for name, figure in CAP_FIGURES.items()
        if options.get(name) is not None and not _is_relative(options[name])
    }


def _is_relative(cap: object) -> bool:
    return str(cap).endswith("x")


def _keeps(imbalance: Mapping[str, float], caps: Mapping[str, Fraction]) -> bool:
    return all(
        Fraction(imbalance[figure]) <= cap * ROUNDING for figure, cap in caps.items()
    )


def _other_question(
    options: Mapping[str, Any], manifest: Mapping[str, Any]
) -> list[str]:
    """Say where the manifest was made under other options than the case's."""
    objective, caps = manifest["objective"], manifest.get("caps") or {}
    told = {
        **manifest["inputs"]["options"]["values"],
        "traffic": manifest["traffic"],
        "selection": manifest["selection"],
        "endpoint": manifest["endpoint"],
        "homes": manifest["homes"],
        "objective": objective["name"],
        "layers": objective["layers"],
        "imbalance_cap": _cap_text(caps, "gpu"),
        "domain_imbalance_cap": _cap_text(caps, "domain"),
    }
    wanted = {**asdict(SolveOptions()), **options}
    return [
        f"{name}: the case asks for {asked}, the plan has {told.get(name)}"
        for name, asked in wanted.items()
        if asked not in (None, "auto") and not _same(name, asked, told.get(name))
    ]


def _cap_text(caps: Mapping[str, Any], name: str) -> str | None:
    """Return a cap as it was asked for."""
    if caps.get(name) is None:
        return None
    return f"{caps[name]}x" if caps.get(f"{name}_lowest") else str(caps[name])


def _same(name: str, asked: Any, given: Any) -> bool:
    """Whether an option has the value asked for; resolved values may say more."""
    if name == "layout":
        return set(str(asked).split(",")) <= set(str(given).split(","))
    if given is None or isinstance(asked, list | tuple):
        return list(asked) == given if given is not None else False
    if _is_relative(asked) and _is_relative(given):
        asked, given = str(asked)[:-1], str(given)[:-1]
    try:
        return Fraction(str(asked)) == Fraction(str(given))
    except ValueError:
        return str(asked) == str(given)


def _unseen(holdout: Mapping[str, Any] | None) -> Unseen | None:
    if holdout is None:
        return None
    value = holdout["objective"]["value"]
    rivals = [
        base["objective"]["value"]
        for name, base in holdout["baselines"].items()
        if name.startswith(EPLB) and base.get("objective") is not None
    ]
    best = min(rivals, default=0)
    return Unseen(value=value, ratio_eplb=value / best if best else None)


def _metrics(manifest: Mapping[str, Any]) -> Metrics:
    prediction, imbalance = manifest["prediction"], manifest["imbalance"]
    layers = prediction["layers"]
    slots = sum(len(row) for row in manifest["layers"][0]["slots"])
    experts = {e for row in manifest["layers"][0]["slots"] for e in row}
    far = sum(Fraction(layer["inter_domain_transfers_exact"]) for layer in layers)
    return Metrics(
        max_link_tokens=manifest["objective"]["link_tokens"]["worst_layer"],
        inter_domain_bytes=float(Fraction(prediction["inter_domain_bytes_exact"])),
        inter_domain_transfers=float(far),
        memory_headroom=min(
            1 - gpu["memory_bytes"] / max(1, gpu["memory_limit_bytes"])
            for gpu in prediction["gpus"]
        ),
        redundant_slots=slots - len(experts),
        home_tokens_max_over_mean=prediction["home_tokens_max_over_mean"],
        imbalance_mean=imbalance["mean"],
        imbalance_worst=imbalance["worst"],
        domain_imbalance_worst=imbalance["domain_worst"],
        primal_integral=primal_integral(manifest["provenance"]),
    )


def primal_integral(provenance: Mapping[str, Any]) -> float | None:
    """Return the mean over the solve's time of (incumbent − last) / incumbent.

    0 if the first plan was the last one; before the first plan it counts 1.

    References
    ----------
    Berthold, "Measuring the impact of primal heuristics", OR Letters 41(6), 2013.
    """
    steps = [
        (float(step["seconds"]), float(step["objective"]))
        for step in provenance["history"]
        if step["objective"] is not None
    ]
    end = float(provenance["seconds"])
    if not steps or not end:
        return None
    last, total, before, gap = float(steps[-1][1]), 0.0, 0.0, 1.0
    for seconds, objective in steps:
        total += gap * max(0.0, min(seconds, end) - before)
        before = min(seconds, end)
        gap = 1 - last / objective if objective else 0.0
    return max(0.0, total / end)


def _layers(manifest: Mapping[str, Any]) -> list[Layer]:
    origins = manifest["provenance"].get("layer_strategies") or ()
    return [
        Layer(
            layer=layer["layer"],
            imbalance=layer["imbalance"],
            domain_imbalance=layer["domain_imbalance"],
            origin=origins[index] if index < len(origins) else "",
            **{
                name: link[name]
                for name in ("leg", "link_class", "link", "tokens", "bytes", "seconds")
            },
        )
        for index, layer in enumerate(manifest["prediction"]["layers"])
        for link in layer["busiest"]
    ]


def write_results(path: Path, results: Sequence[Result], machine: Machine) -> None:
    """Write ``results.jsonl``: a line about the run, then a line per case."""
    head = {"schema": SCHEMA, "machine": machine.model_dump(mode="json")}
    lines = [head, *(result.model_dump(mode="json") for result in results)]
    write_text_atomically("".join(f"{canonical_json(line)}\n" for line in lines), path)


def read_results(path: Path) -> tuple[Machine, list[Result]]:
    """Read ``results.jsonl`` strictly.

    Raises
    ------
    InputError
        If the file is missing or is not of this schema.
    """
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
        first = json.loads(head)
        if first.get("schema") != SCHEMA:
            raise InputError(f"must be {SCHEMA}", where=f"{path} /schema")
        machine = Machine.model_validate_json(json.dumps(first["machine"]))
        return machine, [Result.model_validate_json(line) for line in lines]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, AttributeError, ValidationError) as error:
        raise InputError(f"is no file of results: {error}", where=str(path)) from None
