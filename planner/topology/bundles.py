"""Bundles: the shared pieces that the routes of GPU pairs are made of.

The route of a pair is the sum of three bundles: the source's way out, what lies
between, the target's way in. A bundle lists links with numerators over Q.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.topology.graph import Link
from planner.topology.planes import INT64_LIMIT


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundles:
    """CSR over bundles: ``indptr``, links, numerators over ``q``."""

    q: int
    indptr: IntArray
    links_X: IntArray
    numerators_X: ExactArray


class BundleStore:
    """Collects bundles under any denominators; bundle 0 is empty."""

    def __init__(self) -> None:
        self._links: list[IntArray] = [np.zeros(0, dtype=np.int64)]
        self._numerators: list[ExactArray] = [np.zeros(0, dtype=np.int64)]
        self._denominators = [1]

    def add(self, links: IntArray, numerators: ExactArray, denominator: int) -> int:
        """Add a bundle and return its number; a link may stand in it twice."""
        return self._append(links, numerators, denominator) if links.size else 0

    def _append(self, links: IntArray, numerators: ExactArray, denominator: int) -> int:
        self._links.append(links)
        self._numerators.append(numerators)
        self._denominators.append(denominator)
        return len(self._links) - 1

    def add_shares(self, shares: Mapping[int, Fraction]) -> int:
        """Add a bundle of exact shares by link, also an empty one."""
        common = lcm(*(share.denominator for share in shares.values()))
        whole = [int(share * common) for share in shares.values()]
        links = np.fromiter(shares, dtype=np.int64, count=len(shares))
        return self._append(links, _exact(whole), common)

    def finish(self, links: tuple[Link, ...]) -> Bundles:
        """Return all bundles over the least common denominator, groups included."""
        sizes = np.asarray([part.size for part in self._links])
        row_X = np.repeat(np.arange(sizes.size), sizes)
        link_X = np.concatenate(self._links)
        q = lcm(*self._denominators)
        if q < INT64_LIMIT:
            numerator_X = np.concatenate(self._numerators).astype(np.int64)
            scale = np.asarray([q // d for d in self._denominators], dtype=np.int64)
        else:
            numerator_X = np.concatenate(
                [part.astype(object) for part in self._numerators]
            )
            scale = np.asarray([q // d for d in self._denominators], dtype=object)
        numerator_X = numerator_X * scale[row_X]
        row_X, link_X, numerator_X = _with_groups(row_X, link_X, numerator_X, links)
        row_X, link_X, numerator_X = _merged(row_X, link_X, numerator_X, len(links))
        common = gcd(q, int(np.gcd.reduce(numerator_X)) if numerator_X.size else q)
        numerator_X = numerator_X // common
        q //= common
        if numerator_X.dtype == object and q < INT64_LIMIT:
            numerator_X = _exact(numerator_X.tolist())
        indptr = np.searchsorted(row_X, np.arange(sizes.size + 1))
        return Bundles(
            q=q,
            indptr=indptr.astype(np.int64),
            links_X=link_X.astype(np.int64),
            numerators_X=numerator_X,
        )


def _exact(values: list[int]) -> ExactArray:
    small = all(abs(value) < INT64_LIMIT for value in values)
    return np.asarray(values, dtype=np.int64 if small else object)


def _with_groups(
    row_X: IntArray, link_X: IntArray, numerator_X: ExactArray, links: tuple[Link, ...]
) -> tuple[IntArray, IntArray, ExactArray]:
    """A capacity group is one more link that carries what its members carry."""
    if not any(link.members for link in links):
        return row_X, link_X, numerator_X
    group_A = np.full(len(links), -1, dtype=np.int64)
    for link in links:
        group_A[list(link.members)] = link.index
    inside = np.flatnonzero(group_A[link_X] >= 0)
    return (
        np.concatenate([row_X, row_X[inside]]),
        np.concatenate([link_X, group_A[link_X[inside]]]),
        np.concatenate([numerator_X, numerator_X[inside]]),
    )


def _merged(
    row_X: IntArray, link_X: IntArray, numerator_X: ExactArray, width: int
) -> tuple[IntArray, IntArray, ExactArray]:
    """Sort by row and link, and add up the entries of the same place."""
    key_X = row_X * width + link_X
    order = np.argsort(key_X, kind="stable")
    key_X, numerator_X = key_X[order], numerator_X[order]
    if not key_X.size:
        return row_X, link_X, numerator_X
    first = np.flatnonzero(np.diff(key_X, prepend=-1))
    key_X = key_X[first]
    return key_X // width, key_X % width, np.add.reduceat(numerator_X, first)
