"""Two slots per GPU, copies of equal load: no plan fits below a level.

Let a plan fill every GPU with two copies and load at most t, expert e having r_e
copies of size w_e/r_e. A copy larger than t − s has a partner of at most s, so for
every s the GPUs give: slots with size >= t − s number at most those with size <= s
(for s < t/2 the two kinds differ). Copies of size above t do not occur. Adding these
rows with multipliers y_s >= 0 and Σ r = P with λ: if

    Σ_e min_r r · (Σ_s y_s · ([size >= t − s] − [size <= s]) − λ) + λ · P > 0,

with r over the copy counts whose size is at most t, no plan is at t or below.
"""

from fractions import Fraction

import numpy as np

from planner.verifier.certificates.base import CHECKERS, Certificate, Evidence

_KNUTH = 2654435769


@CHECKERS.register("threshold")
def threshold(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``, two slots, selection ``even``, one EP set."""
    fits = (
        evidence.objective == "gpu_tokens"
        and evidence.selection == "even"
        and evidence.slots_per_gpu == 2
        and (evidence.layout.sets == 1 or evidence.ordinals is None)
    )
    if not fits:
        return Fraction(0)
    level = Fraction(certificate["level"])
    rows = [(Fraction(s), Fraction(y)) for s, y in certificate["rows"].items()]
    copies = Fraction(certificate["copies"])
    if any(y < 0 or not 2 * s < level for s, y in rows):
        return Fraction(0)
    total = copies * evidence.slot_count
    most = evidence.slot_count - evidence.experts + 1
    for expert in range(evidence.experts):
        costs = []
        for r in range(1, min(most, evidence.layout.ep) + 1):
            size = least_size(evidence, expert, r)
            if size <= level:
                gain = sum(y * ((size >= level - s) - (size <= s)) for s, y in rows)
                costs.append(r * (gain - copies))
        if not costs:
            return level
        total += min(costs)
    return level if total > 0 else Fraction(0)


def least_size(evidence: Evidence, expert: int, copies: int) -> Fraction:
    """Return the least pairs that any of ``copies`` copies can get (rule 28).

    Counts give each copy an equal share; tokens go to copy
    ((i · 2654435769) mod 2³²) mod m by ordinal i (rule 18).
    """
    part = evidence.part
    if evidence.ordinals is None:
        return evidence.load_SE[0][expert] / copies
    chose_T = (part.experts_LTK[evidence.layer] == expert).any(axis=1)  # type: ignore[union-attr]
    hashed = evidence.ordinals[chose_T].astype(np.uint64) * np.uint64(_KNUTH)
    copy = (hashed & np.uint64(0xFFFFFFFF)) % np.uint64(copies)
    return Fraction(int(np.bincount(copy.astype(np.int64), minlength=copies).min()))
