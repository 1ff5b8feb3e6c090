"""What each traffic mode counts in a layer, and the transfers that follow (rule 20).

The passes over tokens count in small arrays of their own form: pairs of a source and
a column, visits of cells, hosts behind relays. Transfers between GPUs are worked out of
them once, at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.arrays import IntArray
from planner.executor.counter.kernels import (
    pass_copies,
    pass_dedup_domain,
    pass_dedup_gpu,
    pass_direct,
    to_hosts,
)
from planner.executor.counter.sets import (
    DENSE_GPUS,
    IndexArray,
    Sets,
    added,
)
from planner.executor.counter.tables import LayerTable
from planner.pair_counts import PairCounts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerTokens:
    """Some tokens of one layer, as the compiled passes read them.

    ``rest_TM``, ``hash_T`` and ``row_T`` are empty where the selection has no use
    for them.
    """

    ids_TK: IndexArray
    stand_T: IndexArray
    rest_TM: IndexArray
    hash_T: IndexArray
    row_T: IndexArray


class LayerCounter(Protocol):
    """Counts one layer, some tokens at a time."""

    def add(self, tokens: LayerTokens) -> IndexArray:
        """Count some tokens; return where each stands in the next layer."""

    def transfers(self) -> tuple[PairCounts, PairCounts]:
        """Return what the dispatch and the combine leg moved so far."""

    def served(self) -> IntArray:
        """Return the (token, expert) pairs of each GPU, [G]."""

    @property
    def uncovered(self) -> int:
        """Choices whose expert has no copy."""

    @property
    def cells(self) -> int:
        """Numbers held: counters and tables."""


class _Copies:
    """One transfer per (token, expert): sources by columns."""

    def __init__(self, table: LayerTable, sets: Sets, endpoint: str) -> None:
        self._table, self._sets, self._endpoint = table, sets, endpoint
        self._pairs_GX = np.zeros((sets.gpus, table.columns), dtype=np.int64)

    def add(self, tokens: LayerTokens) -> IndexArray:
        pass_copies(*_read(self._table, tokens), self._pairs_GX)
        return tokens.stand_T

    def _hosted(self) -> IntArray:
        shape = (self._sets.gpus, self._table.hosts)
        pairs_GH = np.zeros(shape, dtype=np.int64)
        table = self._table
        to_hosts(self._pairs_GX, table.table_G, table.host_YX, pairs_GH)
        return pairs_GH

    def transfers(self) -> tuple[PairCounts, PairCounts]:
        straight = _by_host(self._hosted(), self._table, self._sets)
        return _mirrored(self._sets.forwarded(straight, self._endpoint))

    def served(self) -> IntArray:
        return _served(self._hosted(), self._table, self._sets)

    @property
    def cells(self) -> int:
        return self._pairs_GX.size + self._table.host_YX.size

    @property
    def uncovered(self) -> int:
        return int(self._pairs_GX[:, -1].sum())


class _DedupGpu:
    """One transfer per (token, distinct GPU): sources by hosts."""

    def __init__(self, table: LayerTable, sets: Sets, endpoint: str) -> None:
        self._table, self._sets, self._endpoint = table, sets, endpoint
        self._pairs_GH = np.zeros((sets.gpus, table.hosts), dtype=np.int64)
        self._served_ZH = np.zeros(table.gpu_ZH.shape, dtype=np.int64)

    def add(self, tokens: LayerTokens) -> IndexArray:
        pass_dedup_gpu(
            *_read(self._table, tokens),
            self._sets.set_G,
            self._table.table_G,
            self._table.host_YX,
            np.zeros(self._table.hosts, dtype=np.uint32),
            self._pairs_GH,
            self._served_ZH,
        )
        return tokens.stand_T

    def transfers(self) -> tuple[PairCounts, PairCounts]:
        straight = _by_host(self._pairs_GH, self._table, self._sets)
        return _mirrored(self._sets.forwarded(straight, self._endpoint))

    def served(self) -> IntArray:
        return _of_hosts(self._served_ZH, self._table, self._sets)

    @property
    def cells(self) -> int:
        return self._pairs_GH.size + self._table.host_YX.size

    @property
    def uncovered(self) -> int:
        return int(self._served_ZH[:, -1].sum())


class _DedupDomain:
    """One transfer per (token, cell) to the relay, one more per distinct GPU there."""

    def __init__(self, table: LayerTable, sets: Sets, endpoint: str) -> None:
        self._table, self._sets = table, sets
        own_Z1 = np.arange(len(table.gpu_ZH))[:, None]
        self._cell_ZH = np.full(
            table.gpu_ZH.shape, sets.size_ZC.shape[1], dtype=np.uint32
        )
        self._cell_ZH[:, :-2] = sets.cell_G[table.gpu_ZH[:, :-2]]
        self._relay_GC = sets.relays()
        places = sets.member_ZCD.shape[2]
        self._visits_GC = np.zeros(self._relay_GC.shape, dtype=np.int64)
        self._fan_ZHD = np.zeros((*table.gpu_ZH.shape, places), dtype=np.int64)
        self._served_ZH = np.zeros(table.gpu_ZH.shape, dtype=np.int64)
        self._relay_ZHD = sets.member_ZCD[own_Z1, self._cell_ZH[:, :-2]]

    def add(self, tokens: LayerTokens) -> IndexArray:
        pass_dedup_domain(
            *_read(self._table, tokens),
            self._sets.set_G,
            self._table.table_G,
            self._table.host_YX,
            self._cell_ZH,
            self._relay_GC,
            np.zeros(self._table.hosts, dtype=np.uint32),
            np.zeros(self._relay_GC.shape[1], dtype=np.uint32),
            self._visits_GC,
            self._fan_ZHD,
            self._served_ZH,
        )
        return tokens.stand_T

    def transfers(self) -> tuple[PairCounts, PairCounts]:
        source_n, cell_n = np.nonzero(self._visits_GC[:, :-1])
        relay_n = self._sets.member_ZCD[
            self._sets.set_G[source_n], cell_n, self._relay_GC[source_n, cell_n]
        ]
        own_m, host_m, place_m = np.nonzero(self._fan_ZHD[:, :-2])
        return _mirrored(
            added(
                self._sets.gpus,
                np.concatenate([source_n, self._relay_ZHD[own_m, host_m, place_m]]),
                np.concatenate(
                    [relay_n, self._table.gpu_ZH[own_m, host_m].astype(np.int64)]
                ),
                np.concatenate(
                    [
                        self._visits_GC[source_n, cell_n],
                        self._fan_ZHD[own_m, host_m, place_m],
                    ]
                ),
            )
        )

    def served(self) -> IntArray:
        return _of_hosts(self._served_ZH, self._table, self._sets)

    @property
    def cells(self) -> int:
        return 2 * self._visits_GC.size + self._fan_ZHD.size + self._table.host_YX.size

    @property
    def uncovered(self) -> int:
        return int(self._served_ZH[:, -1].sum())


class _Direct:
    """From where a token stands to its experts, on to its first expert's GPU."""

    def __init__(self, table: LayerTable, sets: Sets, endpoint: str) -> None:
        self._table, self._sets, self._endpoint = table, sets, endpoint
        self._pairs_GH = np.zeros((sets.gpus, table.hosts), dtype=np.int64)
        self._meets_GH = np.zeros_like(self._pairs_GH)

    def add(self, tokens: LayerTokens) -> IndexArray:
        next_T = np.empty_like(tokens.stand_T)
        pass_direct(
            *_read(self._table, tokens),
            self._sets.set_G,
            self._table.table_G,
            self._table.host_YX,
            self._table.gpu_ZH,
            np.uint32(self._table.hosts - 2),
            self._pairs_GH,
            self._meets_GH,
            next_T,
        )
        return next_T

    def transfers(self) -> tuple[PairCounts, PairCounts]:
        straight = _by_host(self._pairs_GH, self._table, self._sets)
        meets = _by_host(self._meets_GH, self._table, self._sets)
        return self._sets.forwarded(straight, self._endpoint), meets.transposed()

    def served(self) -> IntArray:
        return _served(self._pairs_GH, self._table, self._sets)

    @property
    def cells(self) -> int:
        return 2 * self._pairs_GH.size + self._table.host_YX.size

    @property
    def uncovered(self) -> int:
        return int(self._pairs_GH[:, -1].sum())


MODES: dict[str, Callable[[LayerTable, Sets, str], LayerCounter]] = {
    "copies": _Copies,
    "dedup_gpu": _DedupGpu,
    "dedup_domain": _DedupDomain,
    "direct": _Direct,
}


def _read(table: LayerTable, tokens: LayerTokens) -> tuple[object, ...]:
    """Return what every pass reads first."""
    return (
        table.rule,
        tokens.ids_TK,
        tokens.stand_T,
        table.entry_I2,
        tokens.rest_TM,
        tokens.hash_T,
        tokens.row_T,
        table.limit_RB,
        np.uint64(table.half),
    )


def _mirrored(dispatch: PairCounts) -> tuple[PairCounts, PairCounts]:
    """Return both legs: combine is dispatch turned round (rule 21)."""
    if dispatch.gpus > DENSE_GPUS:
        return dispatch, dispatch.transposed()
    return dispatch, PairCounts.of_matrix(dispatch.matrix().T)


def _served(pairs_GH: IntArray, table: LayerTable, sets: Sets) -> IntArray:
    """Return what each GPU computes, from pairs with the sources of its set."""
    pairs_ZRH = pairs_GH.reshape(len(table.gpu_ZH), sets.ep, table.hosts)
    return _of_hosts(pairs_ZRH.sum(axis=1), table, sets)


def _by_host(pairs_GH: IntArray, table: LayerTable, sets: Sets) -> PairCounts:
    source_n, host_n = np.nonzero(pairs_GH[:, :-2])
    target_n = table.gpu_ZH[sets.set_G[source_n], host_n].astype(np.int64)
    return added(sets.gpus, source_n, target_n, pairs_GH[source_n, host_n])


def _of_hosts(count_ZH: IntArray, table: LayerTable, sets: Sets) -> IntArray:
    gpu_ZH = table.gpu_ZH[:, :-2].astype(np.int64)
    return _summed(gpu_ZH.reshape(-1), count_ZH[:, :-2].reshape(-1), sets.gpus)


def _summed(gpu_n: IntArray, count_n: IntArray, gpus: int) -> IntArray:
    count_G = np.zeros(gpus, dtype=np.int64)
    np.add.at(count_G, gpu_n, count_n)
    return count_G
