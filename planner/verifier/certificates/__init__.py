"""Certificates of bounds, proven again: one file per kind (docs/certificates.md)."""

from planner.registry import discover
from planner.verifier.certificates.base import (
    CHECKERS,
    Certificate,
    Evidence,
    proven,
)

__all__ = ["CHECKERS", "Certificate", "Evidence", "proven"]

discover(__name__, __path__)
