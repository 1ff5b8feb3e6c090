"""A named family of members: one file per member, found by itself.

The registry object lives in the family's ``base.py``; the family's
``__init__.py`` calls :func:`discover`, so a new member is one new file.
"""

from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Generic, TypeVar

from planner.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Members of one family by name; a duplicate name is an error."""

    def __init__(self, family: str) -> None:
        self._family = family
        self._members: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds its argument under ``name``."""

        def add(member: T) -> T:
            if name in self._members:
                raise ValueError(f"{self._family} {name!r} is registered twice")
            self._members[name] = member
            return member

        return add

    def get(self, name: str) -> T:
        """Return the member called ``name``; UsageError lists the others."""
        if name not in self._members:
            known = ", ".join(self.names())
            raise UsageError(f"unknown {self._family} {name!r}; choose from {known}")
        return self._members[name]

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._members)


def discover(package: str, path: Iterable[str]) -> None:
    """Import every module of ``package`` so that its members register."""
    for module in iter_modules(path):
        if module.name != "base":
            import_module(f"{package}.{module.name}")
