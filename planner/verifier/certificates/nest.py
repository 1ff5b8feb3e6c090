"""Routing groups that stay in one domain each: every way to part them is bounded.

Domains have equally many GPUs, so a plan parts the groups into as many parts as there
are domains, and the experts of a part are a problem of their own on the GPUs of one
domain. Whatever bounds that problem bounds the plans that have this part; the mean
always does. The least, over all partitions, of the greatest bound of a part is a bound
of the layer. Parts whose experts do not fit, or do not fill, the slots of a domain do
not occur.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import combinations

import numpy as np

from planner.layout import ParallelLayout
from planner.verifier.certificates.base import (
    CHECKERS,
    Certificate,
    Evidence,
    proven,
)
from planner.workload.parts import Part, TokenPart

MOST_PARTS = 1024
"""More sets of groups than this are not gone through."""
_MEAN = {"kind": "mean_pairs"}


@CHECKERS.register("nest")
def nest(certificate: Certificate, evidence: Evidence) -> Fraction:
    """``gpu_tokens``, groups nested in equal domains, one EP set."""
    groups, domains = evidence.nested_groups, _domain_sizes(evidence.layout)
    fits = (
        evidence.objective == "gpu_tokens"
        and groups >= len(domains)
        and groups > 0
        and evidence.experts % groups == 0
        and evidence.layout.sets == 1
        and len(set(domains)) == 1
    )
    if not fits:
        return Fraction(0)
    offered = {
        frozenset(int(group) for group in part["groups"]): part["certificate"]
        for part in certificate["parts"]
    }
    bounds: dict[int, Fraction] = {}
    for chosen in _parts(evidence, groups, domains):
        alone = _alone(evidence, chosen, domains[0])
        bound = proven(_MEAN, alone)
        if frozenset(chosen) in offered:
            bound = max(bound, proven(offered[frozenset(chosen)], alone))
        bounds[sum(1 << group for group in chosen)] = bound
        if len(bounds) > MOST_PARTS:
            return Fraction(0)
    return _least(bounds, groups, len(domains)) or Fraction(0)


def _domain_sizes(layout: ParallelLayout) -> list[int]:
    domain_of = layout.domain_G.tolist()
    return [domain_of.count(domain) for domain in sorted(set(domain_of))]


def _parts(
    evidence: Evidence, groups: int, domains: list[int]
) -> list[tuple[int, ...]]:
    """Return the sets of groups that one domain can hold while no other is empty."""
    size, slots = evidence.experts // groups, evidence.slots_per_gpu
    return [
        chosen
        for count in range(1, groups - len(domains) + 2)
        if slots <= count * size <= slots * domains[0]
        for chosen in combinations(range(groups), count)
    ]


def _alone(evidence: Evidence, chosen: tuple[int, ...], gpus: int) -> Evidence:
    """Return the problem of some groups' experts on the GPUs of one domain."""
    size = evidence.experts // evidence.nested_groups
    experts = [group * size + offset for group in chosen for offset in range(size)]
    return replace(
        evidence,
        layout=ParallelLayout(
            domain_G=np.zeros(gpus, dtype=np.int64),
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        experts=len(experts),
        part=_only(evidence.part, experts, evidence.experts),
        nested_groups=0,
    )


def _only(part: Part, experts: list[int], count: int) -> Part:
    """Return the pairs of some experts, numbered from 0, all from one GPU."""
    if not isinstance(part, TokenPart):
        return replace(part, tokens_LE=part.tokens_LE[:, experts])
    number_E = np.full(count, -1, dtype=np.int16)
    number_E[experts] = np.arange(len(experts))
    known = part.experts_LTK >= 0
    ids_LTK = np.where(known, number_E[np.where(known, part.experts_LTK, 0)], -1)
    return replace(
        part,
        experts_LTK=ids_LTK.astype(np.int16),
        source_T=np.zeros_like(part.source_T),
    )


def _least(bounds: dict[int, Fraction], groups: int, parts: int) -> Fraction | None:
    """Return the least greatest bound over partitions; None if there is none."""

    @cache
    def least(left: int, count: int) -> Fraction | None:
        if count == 0:
            return None if left else Fraction(0)
        first = left & -left
        found = [
            max(bound, rest)
            for mask, bound in bounds.items()
            if mask & first and mask & left == mask
            for rest in [least(left ^ mask, count - 1)]
            if rest is not None
        ]
        return min(found, default=None)

    return least((1 << groups) - 1, parts)
