"""Reading, writing and digesting manifests."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from planner.errors import ManifestError
from planner.manifest.document import SCHEMA, Manifest

_LINE = 96
"""Longest JSON value that is kept on one line of a written manifest."""


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys, no spaces and unescaped text (rule 31)."""
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )


def digest_of_json(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Raises
    ------
    ManifestError
        If there is no such file or it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ManifestError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            fix="give the file the manifest was made from",
        ) from error


def manifest_data(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain JSON values, in the order of the format."""
    data: dict[str, Any] = manifest.model_dump(mode="json", by_alias=True)
    return data


def digest_of_manifest(manifest: Manifest) -> str:
    """Return the SHA-256 of the canonical manifest without its timings.

    Left out: ``provenance.seconds`` and ``provenance.history[].seconds``.
    """
    data = manifest_data(manifest)
    del data["provenance"]["seconds"]
    for entry in data["provenance"]["history"]:
        del entry["seconds"]
    return digest_of_json(data)


def read_manifest(path: str | Path) -> Manifest:
    """Read one manifest strictly.

    Raises
    ------
    ManifestError
        Missing file, not JSON, or something that ``moe-plan/1`` does not allow;
        the message names the place as a JSON pointer.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            fix="give a manifest written by planner solve",
        ) from error
    return parse_manifest(raw, where=str(path))


def parse_manifest(
    source: bytes | str | Mapping[str, Any], *, where: str = "manifest"
) -> Manifest:
    """Read a manifest from JSON text or from plain JSON values.

    Raises
    ------
    ManifestError
        As :func:`read_manifest`.
    """
    try:
        text = source if isinstance(source, bytes | str) else canonical_json(source)
        data = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, TypeError, RecursionError) as error:
        raise ManifestError(
            f"is not JSON: {error}",
            where=where,
            fix="give a manifest written by planner solve",
        ) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        named = data.get("schema") if isinstance(data, dict) else None
        raise ManifestError(
            f"must be {SCHEMA!r}",
            where=f"{where} /schema",
            value=named,
            fix="give a manifest written by planner solve",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        raise _first_problem(error, where) from error


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest; the file appears whole or not at all.

    Raises
    ------
    ManifestError
        If the folder cannot be written.
    """
    write_text_atomically(pretty_json(manifest_data(manifest)), Path(path))


def write_text_atomically(text: str, path: Path) -> None:
    """Write beside the target, then rename: no reader sees half a file."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise ManifestError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            fix="choose a folder that exists and is writable",
        ) from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise ManifestError(
            f"cannot be written: {error.strerror}",
            where=str(path),
            fix="choose a file name in a writable folder",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def pretty_json(value: object) -> str:
    """Return JSON that a person can read and ``diff`` can compare.

    A value that fits on one line stays on it; the text depends on ``value`` only.
    """
    return _pretty(value, "") + "\n"


def _pretty(value: object, indent: str) -> str:
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or len(indent) + len(flat) <= _LINE:
        return flat
    if isinstance(value, list) and all(type(item) is int for item in value):
        return flat
    inner = indent + "  "
    if isinstance(value, list) and all(_is_row(item) for item in value):
        return "[\n" + ",\n".join(f"{inner}{row}" for row in value) + f"\n{indent}]"
    if isinstance(value, dict):
        items = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_pretty(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    items = [inner + _pretty(item, inner) for item in value]
    return "[\n" + ",\n".join(items) + f"\n{indent}]"


def _is_row(value: object) -> bool:
    """Whether a value is a list of integers, which Python writes as JSON does."""
    return isinstance(value, list) and all(type(item) is int for item in value)


def _umask() -> int:
    """The process's umask; the system offers no way to read it without setting."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return dict(pairs)


def _first_problem(error: ValidationError, where: str) -> ManifestError:
    """The first thing pydantic refused, as the planner's own error."""
    problems = error.errors(include_url=False)
    first: ErrorDetails = problems[0]
    pointer = "".join(f"/{part}" for part in first["loc"])
    value = None if first["type"] == "missing" else first["input"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ManifestError(
        f"{first['msg'].removeprefix('Value error, ')}{more}",
        where=f"{where} {pointer or '/'}",
        value=value if pointer else None,
        fix="see docs/moe-plan.schema.json",
    )
