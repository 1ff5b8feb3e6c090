"""The replay without tensors: transfers counted token by token from the rules."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.errors import ManifestError, VerificationError
from planner.executor.counter.kernels import hashes, remainders
from planner.executor.counter.modes import MODES, LayerCounter, LayerTokens
from planner.executor.counter.sets import IndexArray, added, sets_of
from planner.executor.counter.tables import LayerTable, copy_numbers, layer_table
from planner.executor.result import Moved
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.plan import PlacementPlan, SplitWeights
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

HELD_CELLS = 1 << 25
"""Up to so many counters all layers keep theirs from one chunk to the next; beyond,
a layer's are worked out to transfers after each chunk."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerTransfers:
    """What one layer moved: transfers of both legs, (token, expert) pairs by GPU."""

    dispatch: PairCounts
    combine: PairCounts
    pairs_G: IntArray

    def plus(self, other: "LayerTransfers") -> "LayerTransfers":
        """Return the sums of both."""
        return LayerTransfers(
            dispatch=self.dispatch.plus(other.dispatch),
            combine=self.combine.plus(other.combine),
            pairs_G=self.pairs_G + other.pairs_G,
        )


class Counting:
    """Counts a plan's tokens, chunk by chunk, through all layers.

    Tokens keep nothing from one chunk to the next: a chunk's own sources, ranks and
    ordinals say where it belongs.

    Raises
    ------
    ManifestError
        Unknown traffic mode or selection, or weights that break rule 19.
    """

    def __init__(
        self,
        plan: PlacementPlan,
        layout: ParallelLayout,
        *,
        traffic: str,
        selection: str,
        endpoint: str,
    ) -> None:
        if traffic not in MODES:
            raise ManifestError(
                f"must be {', '.join(MODES)}", where="/traffic", value=traffic
            )
        self._plan, self._layout, self._sets = plan, layout, sets_of(layout)
        self._mode, self._endpoint = MODES[traffic], endpoint
        self._chained, self._selection = traffic == "direct", selection
        self._numbers_M = copy_numbers(plan.slots_LGJ)
        self._splits = splits_by_layer(plan)
        self._homeward: PairCounts | None = None
        self._held: dict[int, tuple[LayerTable, LayerCounter]] = {}
        self._sums: dict[int, LayerTransfers] = {}

    def add(self, part: TokenPart) -> None:
        """Count a chunk.

        Raises
        ------
        VerificationError
            A chosen expert has no copy.
        """
        read = _Reading(part, self._selection, self._numbers_M)
        stand_T = read.source_T
        for index in range(len(self._plan.layer_numbers)):
            table, counter = self._held.get(index) or self._fresh(index)
            tokens = read.layer(index, stand_T, table)
            stand_T = counter.add(tokens)
            if counter.uncovered:
                _refuse(part.experts_LTK[index], self._plan.slots_LGJ[index])
            self._keep(index, table, counter)
        if self._chained:
            home = _pairs(stand_T, read.source_T, self._sets.gpus)
            self._homeward = self._homeward.plus(home) if self._homeward else home

    def layers(self) -> list[LayerTransfers]:
        """Return what every layer moved so far."""
        found = []
        for index in range(len(self._plan.layer_numbers)):
            own = self._sums.get(index)
            if own is None:
                own = _folded(self._held.get(index) or self._fresh(index))
            found.append(own)
        if self._homeward is not None:
            last = found[-1]
            found[-1] = LayerTransfers(
                dispatch=last.dispatch,
                combine=last.combine.plus(self._homeward),
                pairs_G=last.pairs_G,
            )
        return found

    def _fresh(self, index: int) -> tuple[LayerTable, LayerCounter]:
        table = layer_table(
            self._plan.slots_LGJ[index],
            self._splits[index],
            self._selection,
            self._numbers_M,
            self._sets,
            self._layout.dp,
        )
        return table, self._mode(table, self._sets, self._endpoint)

    def _keep(self, index: int, table: LayerTable, counter: LayerCounter) -> None:
        """Hold a layer's counters, or add its transfers up where they are too many."""
        if counter.cells * len(self._plan.layer_numbers) <= HELD_CELLS:
            self._held[index] = table, counter
            return
        own, before = _folded((table, counter)), self._sums.get(index)
        self._sums[index] = own if before is None else before.plus(own)


def count(
    plan: PlacementPlan,
    part: TokenPart,
    *,
    layout: ParallelLayout,
    model_spec: MoEModelSpec,
    traffic: str,
    selection: str,
    endpoint: str,
) -> Moved:
    """Count what every layer moves; needs no torch.

    Raises
    ------
    VerificationError
        A chosen expert has no copy.
    """
    return count_stream(
        plan,
        [part],
        layout=layout,
        model_spec=model_spec,
        traffic=traffic,
        selection=selection,
        endpoint=endpoint,
    )


def count_stream(
    plan: PlacementPlan,
    chunks: Iterable[TokenPart],
    *,
    layout: ParallelLayout,
    model_spec: MoEModelSpec,
    traffic: str,
    selection: str,
    endpoint: str,
) -> Moved:
    """Count tokens that come in chunks, of which one is in memory at a time.

    Parameters
    ----------
    chunks
        Parts in file order, whose homes and ordinals go on from one to the next.

    Raises
    ------
    VerificationError
        A chosen expert has no copy.
    """
    counting = Counting(
        plan, layout, traffic=traffic, selection=selection, endpoint=endpoint
    )
    for chunk in chunks:
        counting.add(chunk)
    layers = counting.layers()
    return Moved(
        dispatch_LGG=np.stack([layer.dispatch.matrix() for layer in layers]),
        combine_LGG=np.stack([layer.combine.matrix() for layer in layers]),
        gpu_pairs_LG=np.stack([layer.pairs_G for layer in layers]),
        slot_bytes_G=np.tile((plan.slots_LGJ >= 0).sum(axis=(0, 2)), layout.sets)
        * model_spec.expert_bytes,
    )


def split_of_layer(plan: PlacementPlan, layer: int) -> dict[int, SplitWeights]:
    """Return the weights of one layer's copies by expert (rule 19)."""
    return splits_by_layer(plan)[layer]


def splits_by_layer(plan: PlacementPlan) -> dict[int, dict[int, SplitWeights]]:
    """Return the weights of all copies by layer and expert."""
    splits: dict[int, dict[int, SplitWeights]] = defaultdict(dict)
    for (layer, expert), weights in plan.split.items():
        splits[layer][expert] = weights
    return splits


class _Reading:
    """One chunk, in the form that compiled code reads."""

    def __init__(self, part: TokenPart, selection: str, numbers_M: IntArray) -> None:
        self._part = part
        self.source_T = part.source_T.astype(np.uint32)
        self._hash_T = np.zeros(0, dtype=np.uint32)
        self._rest_TM = np.zeros((0, 0), dtype=np.uint32)
        self._row_T = self.source_T
        if selection != "nearest":
            self._hash_T = np.empty(part.token_count, dtype=np.uint32)
            ordinal_T = np.require(part.ordinal_T, np.int64, ["C", "W"])
            hashes(ordinal_T, int(selection == "weighted"), self._hash_T)
        if selection == "even":
            shape = (part.token_count, numbers_M.size)
            self._rest_TM = np.empty(shape, dtype=np.uint32)
            remainders(self._hash_T, numbers_M.astype(np.uint32), self._rest_TM)
        if selection == "weighted":
            self._row_T = np.zeros_like(self.source_T)

    def layer(self, index: int, stand_T: IndexArray, table: LayerTable) -> LayerTokens:
        """Return the chunk's tokens in one layer."""
        # Compiled for arrays that may be written: others would compile it again.
        ids_TK = np.require(self._part.experts_LTK[index], np.int16, ["C", "W"])
        row_T = self._row_T
        if table.row_S is not None:
            row_T = table.row_S[self._part.rank_T]
        return LayerTokens(
            ids_TK=ids_TK.view(np.uint16),
            stand_T=stand_T,
            rest_TM=self._rest_TM,
            hash_T=self._hash_T,
            row_T=row_T,
        )


def _folded(held: tuple[LayerTable, LayerCounter]) -> LayerTransfers:
    counter = held[1]
    dispatch, combine = counter.transfers()
    return LayerTransfers(dispatch=dispatch, combine=combine, pairs_G=counter.served())


def _pairs(source_T: IndexArray, target_T: IndexArray, gpus: int) -> PairCounts:
    ones = np.ones(source_T.size, dtype=np.int64)
    return added(gpus, source_T.astype(np.int64), target_T.astype(np.int64), ones)


def _refuse(experts_TK: IdArray, slots_GJ: IdArray) -> None:
    """Name the first expert that is chosen and has no copy."""
    missing = np.setdiff1d(experts_TK[experts_TK >= 0], slots_GJ)
    raise VerificationError([f"expert {missing[0]} is used but has no copy"])
