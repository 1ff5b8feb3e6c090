"""MoE placement planner: expert placement that sees the links.

The names here mirror the command line: ``load``, ``solve``, ``evaluate``,
``verify`` and ``replay``. They are imported on first use, so that
``import planner.errors`` stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from planner._version import __version__

if TYPE_CHECKING:
    from planner.pipeline import evaluate, load, replay, solve, verify

__all__ = ["__version__", "evaluate", "load", "replay", "solve", "verify"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("planner.pipeline"), name)
    raise AttributeError(f"module 'planner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
