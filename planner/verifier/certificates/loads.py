"""Bounds that need no multipliers: loads are >= 0, a maximum is >= the mean."""

from fractions import Fraction

from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence


@CHECKERS.register("nothing_moves")
def nothing_moves(certificate: Certificate, evidence: Evidence) -> Fraction:
    """Loads are never negative: 0 for every objective."""
    return Fraction(0)


@CHECKERS.register("mean_pairs")
def mean_pairs(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``: the fullest GPU computes at least the mean."""
    if evidence.objective != "gpu_tokens":
        return Fraction(0)
    pairs = sum((sum(loads, Fraction(0)) for loads in evidence.load_SE), Fraction(0))
    return pairs / evidence.layout.gpu_count


@CHECKERS.register("count")
def count(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``: below ``level`` the copies do not suffice.

    The copies of an expert sit on different GPUs of an EP set, so an expert of load
    w needs more than w/t copies if every GPU computes less than t: at least
    ⌊w/t⌋ + 1. If these add up to more than P, no plan is below t.
    """
    if evidence.objective != "gpu_tokens":
        return Fraction(0)
    level = Fraction(certificate["level"])
    if level <= 0:
        return Fraction(0)
    largest_E = [max(loads) for loads in zip(*evidence.load_SE, strict=True)]
    needed = sum(load // level + 1 for load in largest_E)
    return level if needed > evidence.slot_count else Fraction(0)
