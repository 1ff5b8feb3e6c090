"""Benchmark cases: one TOML file each, read strictly (``docs/benchmarks.md``)."""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from planner import bundled
from planner.errors import InputError
from planner.manifest import digest_of_file, digest_of_json
from planner.options import SolveOptions

Expectation = Literal["plan", "infeasible"]
SUFFIX = ".toml"
EFFORT = ("time_limit", "threads")
"""Options that say how long a solve may take, not what it solves."""


class _Strict(BaseModel):
    """No unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SynthDocument(_Strict):
    """A synthetic trace, drawn by integers only (``planner.bench.synth``).

    Sequences belong to ``tags`` kinds of requests in turn. A token of a kind
    prefers the kind's share of the experts by ``affinity`` to 1; all tokens prefer
    low ids by 1 + ``skew`` to 1. ``affinity`` 0 means that it takes no others.
    ``ranks`` > 0 records homes: consecutive blocks of ranks for every kind.
    ``order`` ``router`` keeps the experts of a token best first, else they ascend.
    """

    tokens: int = Field(ge=1, le=1_000_000)
    experts: int = Field(ge=1, le=1024)
    top_k: int = Field(ge=1)
    layers: int = Field(ge=1, le=128)
    sequence_tokens: int = Field(default=16, ge=1)
    tags: int = Field(default=1, ge=1)
    affinity: int = Field(default=1, ge=0, le=1000)
    skew: int = Field(default=0, ge=0, le=1000)
    ranks: int = Field(default=0, ge=0, le=4096)
    order: Literal["router"] | None = None
    seed: int = Field(default=0, ge=0, le=2**32 - 1)


class TraceDocument(_Strict):
    """A trace: a file with its digest, a synthetic one, or counts (moe_counts)."""

    path: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    workload: str | None = None
    synth: SynthDocument | None = None
    counts: dict[str, Any] | None = None


class CaseDocument(_Strict):
    """The keys of a case file."""

    about: str = Field(min_length=1)
    family: str = Field(min_length=1)
    tags: list[str] = Field(min_length=1)
    topology: str
    model: str | dict[str, Any] | None = None
    trace: str | TraceDocument = "tiny-moe"
    options: dict[str, Any] = {}
    expect: Expectation = "plan"
    known_optimum: str | int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A problem, the options it is solved with, and what is known about it.

    Attributes
    ----------
    name
        The file's name without its suffix.
    topology
        Bundled name, or the path of a file.
    trace
        Bundled name, inline counts, a file with its digest, or a synthetic trace.
    options
        Fields of ``SolveOptions`` that the case sets; others keep their default.
    known_optimum
        The objective of an optimal plan, exactly, where it is known beforehand.
    digest
        SHA-256 of all that defines the problem; not of names, order or comments.
    """

    name: str
    path: Path
    about: str
    family: str
    tags: tuple[str, ...]
    topology: str
    model: str | Mapping[str, Any] | None
    trace: str | TraceDocument
    options: Mapping[str, Any]
    expect: Expectation
    known_optimum: Fraction | None
    digest: str

    @property
    def trace_path(self) -> Path | None:
        """The trace's file, variables of the environment filled in."""
        if isinstance(self.trace, str) or self.trace.path is None:
            return None
        return self.path.parent / os.path.expandvars(self.trace.path)

    @property
    def seconds(self) -> float:
        """The time limit of the solve."""
        default = SolveOptions().time_limit
        return float(self.options.get("time_limit", default))


def read_case(path: Path) -> Case:
    """Read one case file.

    Raises
    ------
    InputError
        Not TOML, an unknown key, or a value that no rule allows; names the place.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        document = CaseDocument.model_validate(data)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not TOML: {error}", where=str(path)) from None
    except ValidationError as error:
        raise _first_problem(error, str(path), "") from None
    _check_options(document.options, str(path))
    _check_trace(document.trace, path)
    topology = _topology(document.topology, path)
    return Case(
        name=path.name.removesuffix(SUFFIX),
        path=path,
        about=document.about,
        family=document.family,
        tags=tuple(document.tags),
        topology=topology,
        model=_model(document.model, path),
        trace=document.trace,
        options=document.options,
        expect=document.expect,
        known_optimum=_optimum(document.known_optimum, path),
        digest=_digest(document, topology, path),
    )


def _check_options(options: Mapping[str, Any], where: str) -> None:
    known = [field.name for field in fields(SolveOptions)]
    for name in options:
        if name not in known:
            raise InputError(
                "is no option of a solve",
                where=f"{where} /options/{name}",
                fix=f"choose from {', '.join(known)}",
            )
    try:
        TypeAdapter(SolveOptions).validate_python(dict(options))
    except ValidationError as error:
        raise _first_problem(error, where, "/options") from None


def _check_trace(trace: str | TraceDocument, path: Path) -> None:
    where = f"{path} /trace"
    if isinstance(trace, str):
        if trace not in bundled.traces():
            raise InputError(
                "is no bundled trace",
                where=where,
                value=trace,
                fix=f"choose from {', '.join(bundled.traces())}, or give a table with "
                "path and sha256",
            )
        return
    kinds = [name for name in ("path", "synth", "counts") if getattr(trace, name)]
    if len(kinds) != 1:
        raise InputError(
            "needs exactly one of path, synth and counts", where=where, value=kinds
        )
    if trace.path is not None and trace.sha256 is None:
        raise InputError(
            "needs the digest of its file",
            where=f"{where}/sha256",
            fix=f"add the output of sha256sum {trace.path}",
        )


def _topology(name: str, path: Path) -> str:
    """A file beside the case wins over a bundled name."""
    beside = path.parent / os.path.expandvars(name)
    if beside.is_file():
        return str(beside)
    if name in bundled.topology_names():
        return name
    raise InputError(
        "is neither a file beside the case nor a bundled topology",
        where=f"{path} /topology",
        value=name,
        fix=f"choose from {', '.join(bundled.topology_names())}",
    )


def _model(model: str | dict[str, Any] | None, path: Path) -> Any:
    """A file beside the case, else a preset's name, else the document."""
    if isinstance(model, str) and (path.parent / model).is_file():
        return str(path.parent / model)
    return model


def _optimum(value: str | int | None, path: Path) -> Fraction | None:
    if value is None:
        return None
    try:
        found = Fraction(value)
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    if found < 0:
        raise InputError(
            "must be a number >= 0, exact: 12, '3/7' or '0.25'",
            where=f"{path} /known_optimum",
            value=value,
        )
    return found


def _digest(document: CaseDocument, topology: str, path: Path) -> str:
    """What is planned, from what, under which options; not how long it may take."""
    file = Path(topology)
    trace = document.trace
    if isinstance(trace, TraceDocument):
        # Where the file lies does not matter, its digest does.
        found = trace.model_dump(exclude_none=True, exclude={"path"})
    else:
        found = {"bundled": digest_of_file(bundled.traces()[trace])}
    cluster = file if file.is_file() else bundled.topology_path(topology)
    model = _model(document.model, path)
    if isinstance(model, str) and Path(model).is_file():
        model = _json(Path(model))
    defaults = asdict(SolveOptions())
    options = {
        name: value
        for name, value in document.options.items()
        if value != defaults[name] and name not in EFFORT
    }
    return digest_of_json(
        {
            "topology": _json(cluster),
            "model": model,
            "trace": found,
            "options": options,
            "expect": document.expect,
        }
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", where=str(path)) from None


def _first_problem(error: ValidationError, where: str, under: str) -> InputError:
    """Return what pydantic refused; of a value that may be two things, the deeper."""
    problems = error.errors(include_url=False)
    problem = max(problems, key=lambda each: len(each["loc"]))
    parts = [part for part in problem["loc"] if part not in ("str", "TraceDocument")]
    pointer = under + "".join(f"/{part}" for part in parts)
    return InputError(
        problem["msg"],
        where=f"{where} {pointer}",
        value=None if problem["type"] == "missing" else problem["input"],
        fix="see docs/benchmarks.md",
    )
