"""Certificates of bounds, proven again: one file per kind (docs/certificates.md)."""

from planner.registry import discover
from planner.verifier.certificates.base import (
    CHECKERS,
    MALFORMED,
    Certificate,
    Evidence,
    proven,
)
from planner.verifier.certificates.chains import chained
from planner.verifier.certificates.walks import lifted, starts

__all__ = [
    "CHECKERS",
    "MALFORMED",
    "Certificate",
    "Evidence",
    "chained",
    "lifted",
    "proven",
    "starts",
]

discover(__name__, __path__)
