"""Limits of the service, with defaults that keep every promise of ``docs/rest.md``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

ENVIRONMENT_PREFIX = "PLANNER_API_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the service accepts and how long it works.

    Attributes
    ----------
    body_bytes, body_seconds
        Largest request body, and how long a client may take to send it.
    json_depth, json_values
        Deepest nesting, and most values (commas, brackets, braces), of a body.
    answer_seconds
        A solve that has not answered by then is killed (504).
    time_limit_default, time_limit_max
        Seconds of search in ``options.time_limit``. The rest of
        ``answer_seconds`` is for starting, reading, scoring and checking.
    concurrent_solves
        More at once are refused (429).
    """

    body_bytes: int = 32 * 2**20
    body_seconds: float = 20.0
    json_depth: int = 64
    json_values: int = 1_000_000
    answer_seconds: float = 29.0
    time_limit_default: float = 5.0
    time_limit_max: float = 15.0
    concurrent_solves: int = 2

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"setting {field.name} must be > 0")
        if self.time_limit_default > self.time_limit_max:
            raise ValueError("time_limit_default must be <= time_limit_max")
        if self.time_limit_max >= self.answer_seconds:
            raise ValueError("time_limit_max must be < answer_seconds")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings with ``PLANNER_API_<NAME>`` variables applied.

        Raises
        ------
        ValueError
            A variable is not a number, or the settings contradict each other.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(ENVIRONMENT_PREFIX + field.name.upper())
            if text is not None:
                given[field.name] = float(text) if field.type is float else int(text)
        return cls(**given)
