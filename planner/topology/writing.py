"""Writes node-link JSON the way the bundled files are: one node or edge a line."""

import json
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any


def topology_text(value: Mapping[str, Any]) -> str:
    """Return ``moe-topology/1`` JSON; exact numbers become decimals."""
    parts = []
    for key, member in value.items():
        if key in ("nodes", "edges", "links"):
            lines = ",\n  ".join(_line(entry) for entry in member)
            parts.append(f' "{key}": [\n  {lines}\n ]')
        else:
            parts.append(f' "{key}": {_line(member)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _line(value: object) -> str:
    return json.dumps(value, default=_number, ensure_ascii=False, allow_nan=False)


def _number(value: object) -> int | float:
    if isinstance(value, Decimal | Fraction):
        return int(value) if value == int(value) else float(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
