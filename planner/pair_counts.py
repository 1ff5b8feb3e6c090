"""Exact counts by ordered GPU pair, only the pairs that count something.

A cluster of 14,848 GPUs has 220 million ordered pairs and a layer of 20,000 tokens
touches fewer than a thousandth of them: nothing that is counted is kept dense.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from planner.arrays import ExactArray, IntArray

_DENSE_LIMIT = 2**22
"""Up to so many pairs (2,048 GPUs) counting in an array beats sorting."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCounts:
    """Counts by (source, target), row-major ascending; no pair twice, no zero.

    Attributes
    ----------
    gpus
        G.
    source_n, target_n
        The pairs.
    count_n
        int64, or Python integers in an object array.
    """

    gpus: int
    source_n: IntArray
    target_n: IntArray
    count_n: ExactArray

    @classmethod
    def of_keys(cls, gpus: int, keys_x: Sequence[int] | IntArray) -> Self:
        """Count how often each key ``source · G + target`` occurs."""
        keys_x = np.asarray(keys_x, dtype=np.int64)
        if gpus * gpus <= _DENSE_LIMIT:
            count_p = np.bincount(keys_x, minlength=gpus * gpus)
            key_n = np.flatnonzero(count_p)
            count_n = count_p[key_n]
        else:
            key_n, count_n = np.unique(keys_x, return_counts=True)
        return cls(
            gpus=gpus,
            source_n=key_n // gpus,
            target_n=key_n % gpus,
            count_n=count_n.astype(np.int64),
        )

    @classmethod
    def summed(
        cls, gpus: int, source_x: IntArray, target_x: IntArray, count_x: ExactArray
    ) -> Self:
        """Add up counts of pairs that may come several times."""
        key_n, place_x = np.unique(source_x * gpus + target_x, return_inverse=True)
        count_n = np.zeros(key_n.size, dtype=count_x.dtype)
        np.add.at(count_n, place_x, count_x)
        held = np.asarray(count_n != 0, dtype=np.bool_)
        key_n = key_n[held]
        return cls(
            gpus=gpus,
            source_n=key_n // gpus,
            target_n=key_n % gpus,
            count_n=count_n[held],
        )

    @classmethod
    def of_matrix(cls, count_GG: ExactArray) -> Self:
        """Return the counts of a whole array [G, G]."""
        source_n, target_n = np.nonzero(count_GG)
        return cls(
            gpus=len(count_GG),
            source_n=source_n,
            target_n=target_n,
            count_n=count_GG[source_n, target_n],
        )

    def matrix(self) -> ExactArray:
        """Return the counts as an array [G, G]; for clusters that are not large."""
        count_GG = np.zeros((self.gpus, self.gpus), dtype=self.count_n.dtype)
        count_GG[self.source_n, self.target_n] = self.count_n
        return count_GG

    def transposed(self) -> Self:
        """Return what flows the other way: combine for dispatch (rule 21)."""
        order = np.argsort(self.target_n * self.gpus + self.source_n)
        return type(self)(
            gpus=self.gpus,
            source_n=self.target_n[order],
            target_n=self.source_n[order],
            count_n=self.count_n[order],
        )

    def apart(self) -> Self:
        """Return the counts without those from a GPU to itself."""
        moved = self.source_n != self.target_n
        return type(self)(
            gpus=self.gpus,
            source_n=self.source_n[moved],
            target_n=self.target_n[moved],
            count_n=self.count_n[moved],
        )

    def plus(self, other: Self) -> Self:
        """Return the sums of both, pair by pair."""
        return self.summed(
            self.gpus,
            np.concatenate([self.source_n, other.source_n]),
            np.concatenate([self.target_n, other.target_n]),
            np.concatenate([self.count_n, other.count_n]),
        )

    @property
    def total(self) -> int:
        """Sum of all counts."""
        return int(self.count_n.sum())

    def between(self, group_G: IntArray) -> int:
        """Sum over the pairs whose ends are in different groups."""
        apart = group_G[self.source_n] != group_G[self.target_n]
        return int(self.count_n[apart].sum())
