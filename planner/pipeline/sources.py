"""Where inputs come from: a bundled name, a file or inline data, with digests."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from os.path import relpath
from pathlib import Path
from typing import Any

from planner import bundled
from planner.errors import TraceError, UsageError
from planner.manifest import canonical_json, digest_of_file, digest_of_json
from planner.manifest.schema import InputFile
from planner.workload.model_spec import MoEModelSpec
from planner.workload.presets import load_model

Source = str | Path | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSource:
    """A trace file with the workload wanted, or inline counts (rule 25).

    ``weight``, ``traffic`` and ``phase`` are None where they are left to the options.
    """

    name: str
    path: Path | None = None
    workload: str | None = None
    inline: Mapping[str, Any] | None = None
    weight: Fraction | None = None
    traffic: str | None = None
    phase: str | None = None


def topology_record(source: Source, base: Path) -> InputFile:
    """Return the manifest's record of a topology."""
    if isinstance(source, Mapping):
        name = str(source.get("graph", {}).get("name", "inline"))
        return _inline_record(name, source)
    if str(source) in bundled.topology_names() and not Path(source).exists():
        path = bundled.topology_path(str(source))
        return InputFile(name=str(source), sha256=digest_of_file(path))
    return file_record(Path(source), base)


def file_record(path: Path, base: Path, name: str | None = None) -> InputFile:
    """Return the record of a file, its path relative to ``base``."""
    return InputFile(
        name=name or path.stem,
        path=Path(relpath(path.resolve(), base.resolve())).as_posix(),
        sha256=digest_of_file(path),
    )


def model_record(source: Source | None, model: MoEModelSpec, base: Path) -> InputFile:
    """Return the record of a model: a file, inline data, or a preset.

    A preset is digested by its sizes: a planner with others is another input.
    """
    if isinstance(source, Mapping):
        return _inline_record(model.name, source)
    if source is not None and Path(source).is_file():
        return file_record(Path(source), base, model.name)
    return InputFile(
        name=model.name, sha256=digest_of_json(asdict(load_model(model.name)))
    )


def trace_record(source: TraceSource, base: Path) -> InputFile:
    """Return the record of a trace; inline counts are embedded."""
    if source.inline is not None:
        return _inline_record(source.name, source.inline)
    if source.path is None:
        raise TraceError("has neither a file nor counts", where=source.name)
    if source.path in bundled.traces().values():
        return InputFile(name=source.name, sha256=digest_of_file(source.path))
    return file_record(source.path, base, source.name)


def find_trace(text: str | Path) -> TraceSource:
    """Return what ``FILE[#WORKLOAD][:WEIGHT[:MODE[:PHASE]]]`` stands for.

    FILE may be a bundled name. A file name may hold colons itself: the longest that
    exists is taken.

    Raises
    ------
    UsageError
        If WEIGHT is no number > 0, or more than three settings follow.
    TraceError
        If there is no such file.
    """
    given = str(text)
    parts = given.split(":")
    for kept in range(len(parts), 0, -1):
        name, _, workload = ":".join(parts[:kept]).partition("#")
        path = Path(name)
        if not path.exists() and name in bundled.traces():
            path = bundled.traces()[name]
        # A colon ends the name of a workload: what follows are settings.
        if name and path.exists() and ":" not in workload:
            return _with_settings(
                TraceSource(
                    name=name if name in bundled.traces() else path.stem,
                    path=path,
                    workload=workload or None,
                ),
                given,
                parts[kept:],
            )
    names = ", ".join(bundled.traces())
    raise TraceError(
        "is neither a file nor a bundled trace",
        where=given.partition("#")[0],
        fix=f"give a Parquet file or one of: {names}",
    )


def _with_settings(
    source: TraceSource, given: str, settings: Sequence[str]
) -> TraceSource:
    """Read ``WEIGHT``, ``MODE`` and ``PHASE``; an empty one is left to the options."""
    if len(settings) > 3:
        raise UsageError(
            f"--trace {given}: at most :WEIGHT:MODE:PHASE may follow the file"
        )
    weight, traffic, phase = (*settings, "", "", "")[:3]
    try:
        share = Fraction(weight) if weight else None
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if share is not None and share <= 0:
        raise UsageError(f"--trace {given}: the weight {weight!r} must be a number > 0")
    return replace(source, weight=share, traffic=traffic or None, phase=phase or None)


def workload_of(topology: Source) -> dict[str, str]:
    """Return the ``workload`` a topology file carries, paths made absolute.

    Only reads the key; the topology itself is validated by its loader.
    """
    if isinstance(topology, Mapping):
        found = topology.get("workload") or {}
        return {key: str(value) for key, value in found.items()}
    path = Path(topology)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return {}
    found = data.get("workload") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        return {}
    return {key: _beside(path, str(value)) for key, value in found.items() if value}


def _beside(topology: Path, value: str) -> str:
    """A relative path in a topology file is meant relative to that file."""
    file, mark, rest = value.partition("#")
    beside = topology.parent / file
    return f"{beside}{mark}{rest}" if beside.is_file() else value


def _inline_record(name: str, content: Mapping[str, Any]) -> InputFile:
    # Keys in one order, as in the digest: the same content gives the same manifest.
    data = json.loads(canonical_json(content))
    return InputFile(name=name, sha256=digest_of_json(data), content=data)
