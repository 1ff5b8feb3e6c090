"""Strict JSON: what a cluster file may be before anyone looks at its keys.

Decimals stay decimals, repeated keys are refused (a JSON reader keeps the last
one, silently), and texts that are not JSON get the advice that fits them.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from planner.errors import TopologyError

MAX_BYTES = 64 * 2**20
_MATRIX = re.compile(r"(?m)^[\s\x1b\[0-9;m]*GPU0\b.*\b(X|GPU1|CPU Affinity)\b")


class _Repeated(dict[str, Any]):
    """An object in which a key appears twice."""

    key = ""


def read_json(path: Path) -> Any:
    """Return the JSON value of a file with numbers as int or Decimal.

    Raises
    ------
    TopologyError
        Missing, a directory, too large, not UTF-8 or not JSON.
    """
    where = str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TopologyError(
                f"is larger than {MAX_BYTES} bytes",
                where=where,
                fix="describe regular clusters by a generator file",
            )
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        _refuse("does not exist", where, "give a cluster file or a bundled name")
    except IsADirectoryError:
        _refuse("is a directory", where, "name the JSON file in it")
    except UnicodeDecodeError:
        _refuse("is not UTF-8 text", where, "give a moe-topology/1 JSON file")
    except OSError as error:
        _refuse(f"cannot be read ({error.strerror})", where, "check the path")
    return parse_json(text, where)


def parse_json(text: str, where: str) -> Any:
    """Return the JSON value of ``text``; errors name ``where``."""
    try:
        value = json.loads(
            text,
            parse_float=Decimal,
            parse_constant=lambda name: Decimal(name.replace("inity", "")),
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        _not_json(text, where, error)
    except RecursionError:
        _refuse("is nested too deeply", where, "a cluster file has about 5 levels")
    except (ValueError, InvalidOperation):
        _refuse("holds a number of too many digits", where, "write it shorter")
    repeated = _find_repeated(value, "")
    if repeated:
        pointer, key = repeated
        raise TopologyError(
            "appears twice in one object",
            where=f"{where} {pointer or '/'}",
            value=key,
            fix="keep one of the two",
        )
    return value


def check_json(value: Mapping[str, Any], where: str) -> None:
    """Refuse an inline value that is not a JSON object of sane depth."""
    try:
        json.dumps(value, default=str)
    except RecursionError:
        _refuse("is nested too deeply", where, "a cluster has about 5 levels")
    except (TypeError, ValueError) as error:
        _refuse(f"is not a JSON object ({error})", where, "give plain JSON values")


def pointer_error(error: ValidationError, where: str, base: str = "") -> TopologyError:
    """Return the first finding of pydantic as file, pointer, value and rule."""
    findings = error.errors(include_url=False)
    first = findings[0]
    pointer = base + "".join(f"/{_escape(part)}" for part in first["loc"]) or "/"
    kind = str(first["type"])
    more = len(findings) - 1
    said = str(first["msg"]).removeprefix("Input ").replace("should", "must", 1)
    fix = _FIXES.get(kind, "see docs/topologies.md for the fields")
    return TopologyError(
        _RULES.get(kind, said),
        where=f"{where} {pointer}",
        value=None if kind == "missing" else _shown(first["input"]),
        fix=f"{fix} ({more} more of this kind)" if more else fix,
    )


_RULES = {
    "missing": "is required",
    "extra_forbidden": "stands under an unknown key",
    "positive": "must be finite and > 0",
}
_FIXES = {
    "missing": "add the field",
    "extra_forbidden": "remove the key or correct its spelling",
    "positive": "give the nominal figure, or state: down for what is broken",
    "finite": "give a plain decimal number",
    "literal_error": "use one of the words named",
}


def _shown(value: object) -> object:
    """Return a decimal the way people write it; 1e999 would print as inf."""
    if not isinstance(value, Decimal):
        return value
    number = float(value)
    return number if math.isfinite(number) and (number or not value) else str(value)


def _escape(part: object) -> str:
    return str(part).replace("~", "~0").replace("/", "~1")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    marked, seen = _Repeated(made), set[str]()
    for key, _ in pairs:
        if key in seen:
            marked.key = key
        seen.add(key)
    return marked


def _find_repeated(value: Any, pointer: str) -> tuple[str, str] | None:
    if isinstance(value, _Repeated):
        return pointer, value.key
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, member in items:
        if isinstance(member, dict | list):
            found = _find_repeated(member, f"{pointer}/{_escape(key)}")
            if found:
                return found
    return None


def _not_json(text: str, where: str, error: json.JSONDecodeError) -> NoReturn:
    if _MATRIX.search(text):
        _refuse(
            "is the output of nvidia-smi topo -m, not moe-topology/1 JSON",
            where,
            "the verb that imports it is `planner topology import --from nvidia-smi` "
            "(not in this version yet); until then write a generator file, see "
            "docs/topologies.md",
        )
    if not text.strip():
        _refuse("is empty", where, "give a moe-topology/1 JSON file")
    place = f"line {error.lineno} column {error.colno}"
    if error.pos >= len(text.rstrip()):
        _refuse(
            f"ends too early at {place}", where, "the file is cut off: copy it again"
        )
    _refuse(f"is not JSON: {error.msg} at {place}", where, "give a moe-topology/1 file")


def _refuse(rule: str, where: str, fix: str) -> NoReturn:
    raise TopologyError(rule, where=where, fix=fix) from None
