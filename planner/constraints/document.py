"""The border of a constraints file: its keys, read strictly."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.errors import InputError

KINDS = ("pins", "forbidden", "apart")
Number = Annotated[int, Field(ge=0)]
Names = Annotated[list[str], Field(min_length=1)]


class _Strict(BaseModel):
    """No unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Placed(_Strict):
    """Experts and GPUs: ids, or ``host=``, ``domain=`` or a failure domain's tag."""

    experts: Annotated[list[Number], Field(min_length=1)]
    at: Names
    layers: Annotated[list[Number], Field(min_length=1)] | None = None


class Apart(_Strict):
    """Experts whose copies lie in different hosts, domains or failure domains."""

    by: str = Field(min_length=1)
    experts: Annotated[list[Number], Field(min_length=1)] | None = None
    layers: Annotated[list[Number], Field(min_length=1)] | None = None


class Document(_Strict):
    """A constraints file."""

    pins: list[Placed] = []
    forbidden: list[Placed] = []
    apart: list[Apart] = []


def check_document(data: Mapping[str, Any], where: str = "constraints") -> Document:
    """Return a document whose keys and types are right.

    Raises
    ------
    InputError
        With the place of the first fault.
    """
    try:
        return Document.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise InputError(
            first["msg"],
            where=f"{where}{pointer}",
            value=None if first["type"] == "missing" else first["input"],
            fix="docs/constraints.md lists the keys",
        ) from error


def read_constraints(path: Path) -> dict[str, Any]:
    """Return the content of a JSON or TOML file (``.toml``).

    Raises
    ------
    InputError
        If it cannot be read, is neither, or its keys are wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError("cannot be read", where=str(path)) from error
    except (json.JSONDecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        kind = "TOML" if path.suffix == ".toml" else "JSON"
        raise InputError(f"is not {kind}: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise InputError("must be an object", where=str(path))
    check_document(data, str(path))
    return data


class _Row(BaseModel):
    """A layer of a plan; its other keys do not matter."""

    layer: Number
    slots: list[list[Number]] = Field(min_length=1)


class Previous(BaseModel):
    """What counts of a previous plan: its GPUs in EP order and its slots."""

    gpus: Names
    layers: Annotated[list[_Row], Field(min_length=1)]


def previous_document(data: Mapping[str, Any], where: str = "previous") -> Previous:
    """Return the previous plan: any object with a manifest's ``gpus`` and ``layers``.

    Raises
    ------
    InputError
        With the place of the first fault.
    """
    try:
        found = Previous.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise InputError(
            first["msg"], where=f"{where}{pointer}", fix="give a manifest moe-plan/1"
        ) from error
    if any(len(found.gpus) % len(row.slots) for row in found.layers):
        raise InputError("slots of a layer must be those of an EP set", where=where)
    return found
