"""Which sequences are held out: planned without them, scored on them (rule 14)."""

import re
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256

import numpy as np

from planner.arrays import BoolArray
from planner.errors import UsageError
from planner.workload.tokens import RoutingTrace

_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdout:
    """Share of each tag's sequences to hold out, and the salt of their order."""

    share: Fraction
    salt: str = ""


def parse_holdout(text: str) -> Holdout:
    """Read ``F`` or ``F:SALT``; F is a decimal from 0 to 1, taken exactly.

    Raises
    ------
    UsageError
        If F is not such a decimal.
    """
    share, _, salt = text.partition(":")
    if not _DECIMAL.fullmatch(share) or Fraction(share) > 1:
        raise UsageError(
            f"--holdout {text!r}: F of F[:SALT] must be a decimal from 0 to 1"
        )
    return Holdout(share=Fraction(share), salt=salt)


def held_out_tokens(trace: RoutingTrace, holdout: Holdout) -> BoolArray:
    """Return which tokens of the whole file are held out.

    Per tag, sequences ordered by SHA-256 of ``holdout<SALT>:<id>``; the first
    min(n − 1, ⌊F·n + ½⌋) of n are held out, never below 0.
    """
    _, first_row = np.unique(trace.sequence_T, return_index=True)
    tag_of = trace.tag_T[first_row]
    held = np.zeros(trace.sequence_count, dtype=np.bool_)
    for tag in np.unique(tag_of).tolist():
        members = np.flatnonzero(tag_of == tag).tolist()
        members.sort(key=lambda s: _digest(holdout.salt, trace.sequence_ids[s]))
        held[members[: _count(len(members), holdout.share)]] = True
    tokens: BoolArray = held[trace.sequence_T]
    return tokens


def _count(sequences: int, share: Fraction) -> int:
    nearest = (share * sequences + Fraction(1, 2)).__floor__()
    return max(0, min(sequences - 1, nearest))


def _digest(salt: str, sequence: int | str) -> bytes:
    return sha256(f"holdout{salt}:{sequence}".encode()).digest()
