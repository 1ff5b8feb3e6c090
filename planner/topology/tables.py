"""Which bundles make up the route of a GPU pair: written out, or looked up."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from planner.arrays import BoolArray, ExactArray, IntArray
from planner.topology.kernel import survey

NO_CASE, SCALE_UP_CASE, HOST_CASE, FABRIC_CASE = -1, 0, 1, 2


class PairTarget(Protocol):
    """What the pairs of a block of GPUs are written to."""

    def write(
        self,
        gpus: IntArray,
        exit_GG: ExactArray,
        middle_GG: ExactArray,
        entry_GG: ExactArray,
        usable_GG: BoolArray,
        case: int,
    ) -> None:
        """Keep the bundles of the usable pairs of ``gpus``."""
        ...


class Table(Protocol):
    """Bundles of every pair."""

    @property
    def reachable_GG(self) -> BoolArray:
        """Which ordered pairs have a path; the diagonal is False."""
        ...

    @property
    def reachable_pairs(self) -> int:
        """How many ordered pairs have a path."""
        ...

    @property
    def alone(self) -> IntArray:
        """The GPUs that reach no other."""
        ...

    def columns(
        self, source_n: IntArray, target_n: IntArray
    ) -> tuple[IntArray, BoolArray]:
        """Return the bundles of these pairs [n, C], and which have a path."""
        ...

    def add(
        self,
        amount_B: ExactArray,
        source_n: IntArray,
        target_n: IntArray,
        count_n: ExactArray,
    ) -> BoolArray:
        """Add the counts of these pairs to their bundles; return which have a path."""
        ...

    def ways(self, domain_G: IntArray, *, leaving: bool) -> list[list[int]]:
        """Return by GPU the last (first) bundles of its routes to other domains."""
        ...

    def survey(self, bundles: int) -> "Survey":
        """Return who uses every bundle."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Survey:
    """Who uses every bundle: pairs, lowest and highest source (row 0) and target."""

    amount_B: IntArray
    first_2B: IntArray
    last_2B: IntArray

    @classmethod
    def empty(cls, bundles: int, gpus: int) -> "Survey":
        """Return a survey in which nobody uses anything."""
        return cls(
            amount_B=np.zeros(bundles, dtype=np.int64),
            first_2B=np.full((2, bundles), gpus, dtype=np.int64),
            last_2B=np.full((2, bundles), -1, dtype=np.int64),
        )

    def add(
        self,
        bundle: IntArray,
        amount: IntArray,
        sources: tuple[IntArray, IntArray],
        targets: tuple[IntArray, IntArray],
    ) -> None:
        """Add so many pairs to bundles, their ends from the one to the other."""
        used = amount > 0
        np.add.at(self.amount_B, bundle[used], amount[used])
        for row, (first, last) in enumerate((sources, targets)):
            np.minimum.at(self.first_2B[row], bundle[used], first[used])
            np.maximum.at(self.last_2B[row], bundle[used], last[used])


@dataclass(frozen=True, kw_only=True, eq=False)
class PairTable:
    """Bundle numbers of every ordered GPU pair, written out: 13 bytes a pair.

    ``exit_GG`` is -1 without a path; ``case_GG`` says which case of rule 4 holds.
    """

    exit_GG: IntArray
    middle_GG: IntArray
    entry_GG: IntArray
    case_GG: IntArray

    @classmethod
    def empty(cls, count: int) -> "PairTable":
        """Return a table in which no pair has a path."""
        shape = (count, count)
        return cls(
            exit_GG=np.full(shape, -1, dtype=np.int32),
            middle_GG=np.zeros(shape, dtype=np.int32),
            entry_GG=np.zeros(shape, dtype=np.int32),
            case_GG=np.full(shape, NO_CASE, dtype=np.int8),
        )

    @property
    def reachable_GG(self) -> BoolArray:
        """Which ordered pairs have a path; the diagonal is False."""
        reachable: BoolArray = self.exit_GG >= 0
        return reachable

    @property
    def reachable_pairs(self) -> int:
        """How many ordered pairs have a path."""
        return int(self.reachable_GG.sum())

    @property
    def alone(self) -> IntArray:
        """The GPUs that reach no other."""
        return np.flatnonzero(~self.reachable_GG.any(axis=1))

    @property
    def parts(self) -> tuple[IntArray, IntArray, IntArray]:
        """Way out, what lies between and way in, each [G, G]."""
        return self.exit_GG, self.middle_GG, self.entry_GG

    def columns(
        self, source_n: IntArray, target_n: IntArray
    ) -> tuple[IntArray, BoolArray]:
        """Return the bundles of these pairs [n, 3], and which have a path."""
        columns = [part[source_n, target_n].astype(np.int64) for part in self.parts]
        return np.stack(columns, axis=-1), columns[0] >= 0

    def add(
        self,
        amount_B: ExactArray,
        source_n: IntArray,
        target_n: IntArray,
        count_n: ExactArray,
    ) -> BoolArray:
        """Add the counts of these pairs to their bundles; return which have a path."""
        reached_n = self.exit_GG[source_n, target_n] >= 0
        if reached_n.all():
            for part in self.parts:
                np.add.at(amount_B, part[source_n, target_n], count_n)
        return np.asarray(reached_n)

    def ways(self, domain_G: IntArray, *, leaving: bool) -> list[list[int]]:
        """Return by GPU the last (first) bundles of its routes to other domains."""
        part_GG = self.exit_GG if leaving else self.entry_GG.T
        reach_GG = self.reachable_GG if leaving else self.reachable_GG.T
        return [
            np.unique(row[reach & (domain_G != domain)]).tolist()
            for row, reach, domain in zip(part_GG, reach_GG, domain_G, strict=True)
        ]

    def survey(self, bundles: int) -> Survey:
        """Return who uses every bundle."""
        found = Survey.empty(bundles, len(self.exit_GG))
        survey(*self.parts, found.amount_B, found.first_2B, found.last_2B)
        return found

    def write(
        self,
        gpus: IntArray,
        exit_GG: ExactArray,
        middle_GG: ExactArray,
        entry_GG: ExactArray,
        usable_GG: BoolArray,
        case: int,
    ) -> None:
        """Keep the bundles of the usable pairs of ``gpus``."""
        _write(self.exit_GG, gpus, exit_GG, usable_GG)
        _write(self.middle_GG, gpus, middle_GG, usable_GG)
        _write(self.entry_GG, gpus, entry_GG, usable_GG)
        _write(self.case_GG, gpus, np.int8(case), usable_GG)

    def write_one(self, source: int, target: int, bundle: int, case: int) -> None:
        """Keep one pair whose route is a bundle of its own."""
        self.exit_GG[source, target] = 0
        self.middle_GG[source, target] = bundle
        self.entry_GG[source, target] = 0
        self.case_GG[source, target] = case


class InsidePairs:
    """Bundles of the few pairs that stay inside a domain or a host."""

    def __init__(self, gpus: int) -> None:
        self._gpus = gpus
        self._parts: list[tuple[IntArray, IntArray]] = []
        self._key_n = np.zeros(0, dtype=np.int64)
        self._bundle_n3 = np.zeros((0, 3), dtype=np.int64)
        self._block_G = np.arange(gpus)

    def write(
        self,
        gpus: IntArray,
        exit_GG: ExactArray,
        middle_GG: ExactArray,
        entry_GG: ExactArray,
        usable_GG: BoolArray,
        case: int,
    ) -> None:
        """Keep the bundles of the usable pairs; what is written later counts."""
        del case
        row, column = np.nonzero(usable_GG)
        bundles = np.stack(
            [part[row, column] for part in (exit_GG, middle_GG, entry_GG)], axis=-1
        )
        self._parts.append((gpus[row] * self._gpus + gpus[column], bundles))

    def finish(self) -> None:
        """Sort what was written, before anything is looked up."""
        if not self._parts:
            return
        # The last of equal keys is wanted: look at them back to front.
        key_x = np.concatenate([key for key, _ in self._parts])[::-1]
        self._key_n, place_n = np.unique(key_x, return_index=True)
        bundle_x3 = np.concatenate([bundles for _, bundles in self._parts])[::-1]
        self._bundle_n3 = bundle_x3[place_n].astype(np.int64)
        size = (self._gpus, self._gpus)
        joined = coo_array((np.ones_like(self._key_n), self.pairs), shape=size)
        self._block_G = connected_components(joined, directed=False)[1]

    @property
    def pairs(self) -> tuple[IntArray, IntArray]:
        """Source and target of every pair that is kept."""
        return self._key_n // self._gpus, self._key_n % self._gpus

    def columns(
        self, source_n: IntArray, target_n: IntArray
    ) -> tuple[IntArray, BoolArray]:
        """Return the bundles of these pairs [n, 3], and which are kept."""
        bundle_n3 = np.zeros((source_n.size, 3), dtype=np.int64)
        kept_n = np.zeros(source_n.size, dtype=np.bool_)
        # Most pairs are far apart: only those of one block are looked up.
        at = np.flatnonzero(self._block_G[source_n] == self._block_G[target_n])
        if at.size and self._key_n.size:
            key_m = source_n[at] * self._gpus + target_n[at]
            place_m = np.searchsorted(self._key_n, key_m) % self._key_n.size
            bundle_n3[at] = self._bundle_n3[place_m]
            kept_n[at] = self._key_n[place_m] == key_m
        return bundle_n3, kept_n


def _write(
    table_GG: IntArray, gpus: IntArray, values: ExactArray | np.int8, where: BoolArray
) -> None:
    first, last = int(gpus[0]), int(gpus[-1])
    if last - first + 1 == gpus.size:
        # A view: a block of thousands of GPUs is written in place.
        np.copyto(table_GG[first : last + 1, first : last + 1], values, where=where)
        return
    cells = np.ix_(gpus, gpus)
    table_GG[cells] = np.where(where, values, table_GG[cells])
