"""Ways to change a true manifest, and what is said of it then."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from planner.errors import VerificationError
from planner.manifest import digest_of_json
from planner.verifier import verify_manifest

Data = dict[str, Any]
"""A manifest as JSON values."""


def put(path: str, value: object) -> Callable[[Data], None]:
    """Return a change of one place."""

    def change(data: Data) -> None:
        at: Any = data
        *parents, last = path.strip("/").split("/")
        for key in parents:
            at = at[int(key)] if isinstance(at, list) else at[key]
        key = int(last) if isinstance(at, list) else last
        at[key] = value(at[key]) if callable(value) else value

    return change


def refused(plan: Data, folder: Path, *changes: Callable[[Data], None]) -> str:
    """Return what verification says of the changed plan."""
    data = deepcopy(plan)
    for change in changes:
        change(data)
    options = data["inputs"]["options"]
    options["sha256"] = digest_of_json(options["values"])
    with pytest.raises(VerificationError) as caught:
        verify_manifest(data, folder=folder)
    return "; ".join(caught.value.findings)


def more(value: float) -> float:
    """A little more than the truth."""
    return value * 2 + 1
