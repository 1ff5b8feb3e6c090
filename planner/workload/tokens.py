"""Token traces: which experts each token of each sequence chose, layer by layer.

Format and column names: rule 11 and ``docs/traces.md``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from planner.arrays import IdArray, IntArray
from planner.errors import TraceError
from planner.workload.parquet import TextColumn, TraceFile, positive_fact

MAX_EXPERTS = 2**15 - 1
_LAYER_COLUMN = re.compile(r"e([0-9]+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class RoutingTrace:
    """The choices of every token, in file order.

    Attributes
    ----------
    model
        What the file says it was recorded on; only reported.
    metadata
        All of the file's ``moe_trace``.
    layer_numbers
        Number in the model of each layer, ascending.
    experts_LTK
        Chosen experts [L, T, K], ``int16``; -1 marks a null row or element. No token
        where they were not read.
    sequence_T, sequence_ids
        Index of each token's sequence in ``sequence_ids``, which ascend.
    tag_T, tags
        Code of each token's tag in ``tags``; -1 where null. No column: all -1.
    phase_T, phases
        The same of the phase.
    rank_T
        Source DP rank; None unless the column ``rank`` is there and complete.
    step_T, pos_T, token_id_T
        Optional columns; -1 where null.
    order
        ``router`` (best expert first), ``sorted``, or None if not said.
    """

    path: Path
    model: str
    metadata: Mapping[str, Any]
    num_experts: int
    top_k: int
    layer_numbers: tuple[int, ...]
    experts_LTK: IdArray
    sequence_T: IntArray
    sequence_ids: tuple[int, ...] | tuple[str, ...]
    tag_T: IntArray
    tags: tuple[str, ...]
    phase_T: IntArray
    phases: tuple[str, ...]
    rank_T: IntArray | None
    step_T: IntArray | None
    pos_T: IntArray | None
    token_id_T: IntArray | None
    order: str | None

    @property
    def token_count(self) -> int:
        """T."""
        return int(self.sequence_T.size)

    @property
    def sequence_count(self) -> int:
        """Number of distinct sequences."""
        return len(self.sequence_ids)


def require_router_order(trace: RoutingTrace, traffic: str) -> None:
    """Refuse a trace that does not say which expert of a token is its best.

    Raises
    ------
    TraceError
        Unless the metadata say that the router's order was kept.
    """
    if trace.order != "router":
        raise TraceError(
            f"must be router for traffic {traffic}, which follows each token's best "
            "expert",
            where=f"{trace.path}: metadata moe_trace/order",
            value=trace.order,
            fix="record experts best first, or choose another --traffic",
        )


def read_tokens(file: TraceFile, *, choices: bool = True) -> RoutingTrace:
    """Read an open token trace.

    Parameters
    ----------
    choices
        Whether the chosen experts are read, which are most of a file.

    Raises
    ------
    TraceError
        If a column is missing or of the wrong kind, an id is outside the model's
        experts, a row has another number of experts, or there is no row.
    """
    file.require_rows()
    experts = positive_fact(file, "num_experts", MAX_EXPERTS)
    top_k = positive_fact(file, "top_k", experts)
    columns = layer_columns(file)
    rows = file.rows if choices else 0
    experts_LTK = np.empty((len(columns), rows, top_k), dtype=np.int16)
    for index, name in enumerate(columns.values()):
        _require_lists(file, name, top_k)
        if choices:
            _fill_layer(file, name, experts_LTK[index], experts)
    sequence_T, ids = _sequences(file)
    tag, phase = _tags(file), file.phases()
    return RoutingTrace(
        path=file.path,
        model=str(file.metadata.get("model", "")),
        metadata=file.metadata,
        num_experts=experts,
        top_k=top_k,
        layer_numbers=tuple(columns),
        experts_LTK=experts_LTK,
        sequence_T=sequence_T,
        sequence_ids=ids,
        tag_T=tag.code_T,
        tags=tag.names,
        phase_T=phase.code_T,
        phases=phase.names,
        rank_T=_complete_integers(file, "rank"),
        step_T=_optional_integers(file, "step"),
        pos_T=_optional_integers(file, "pos"),
        token_id_T=_optional_integers(file, "token_id"),
        order=_order(file),
    )


def layer_columns(file: TraceFile) -> dict[int, str]:
    """Return the columns ``e<layer number>`` by layer number, ascending."""
    found: dict[int, str] = {}
    for name in file.names:
        match = _LAYER_COLUMN.fullmatch(name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            raise TraceError(
                "names a layer twice",
                where=file.place(name),
                value=found[number],
                fix="keep one column per layer",
            )
        found[number] = name
    if not found:
        file.first_of("e<layer number>")
    columns = dict(sorted(found.items()))
    said = file.metadata.get("moe_layers")
    if said is not None and said != list(columns):
        raise TraceError(
            "must list the layers of the columns e<layer number>, ascending",
            where=f"{file.path}: metadata moe_trace/moe_layers",
            value=said,
            fix=f"the columns are those of layers {list(columns)}",
        )
    return columns


def _require_lists(file: TraceFile, name: str, top_k: int) -> None:
    """Refuse a column of choices of another type."""
    kind = file.schema.field(name).type
    if not _is_list(kind) or not pa.types.is_integer(kind.value_type):
        raise TraceError(
            "must be lists of integers",
            where=file.place(name),
            value=str(kind),
            fix=f"write fixed_size_list<uint8>[{top_k}]",
        )


def _fill_layer(file: TraceFile, name: str, ids_TK: IdArray, experts: int) -> None:
    """Copy one layer's column into ``ids_TK``, -1 for nulls."""
    start, top_k = 0, ids_TK.shape[1]
    for piece in file.batches(name):
        ids_TK[start : start + len(piece)] = checked_rows(
            file, name, piece, start, top_k=top_k, experts=experts
        )
        start += len(piece)


def checked_rows(
    file: TraceFile,
    name: str,
    piece: pa.Array,
    start: int,
    *,
    top_k: int,
    experts: int,
) -> IntArray:
    """Return the choices of some rows, [rows, K], -1 for nulls.

    Parameters
    ----------
    piece, start
        The rows of column ``name``, and the number of the first in the file.

    Raises
    ------
    TraceError
        A row has another number of experts, or an id is outside the model's.
    """
    wide_TK = _rows(file, name, piece, start, top_k)
    wrong = (wide_TK >= experts) | (wide_TK < -1)
    if wrong.any():
        row, k = (int(i) for i in np.argwhere(wrong)[0])
        raise TraceError(
            f"must be an expert id from 0 to {experts - 1}",
            where=file.place(name, start + row),
            value=int(wide_TK[row, k]),
            fix="ids are logical; num_experts in the metadata must be the model's",
        )
    return wide_TK


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_fixed_size_list(kind)
        or pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
    )


def _rows(
    file: TraceFile, name: str, piece: pa.Array, start: int, top_k: int
) -> IntArray:
    """Return a piece of a list column as [rows, K] without copying if it has no null.

    Negative ids that the file itself holds become -2, which no rule allows.
    """
    lengths = _lengths(piece)
    wrong = lengths[(lengths != top_k) & (lengths >= 0)]
    if wrong.size:
        row = start + int(np.flatnonzero(lengths == wrong[0])[0])
        raise TraceError(
            f"must hold top_k = {top_k} experts",
            where=file.place(name, row),
            value=f"{wrong[0]} experts",
            fix="write null for a row without experts, never a shorter list",
        )
    # flatten() leaves out null rows, and null elements inside a row stay null.
    values = piece.flatten()
    ids: IntArray
    if values.null_count:
        valid = np.asarray(values.is_valid())
        ids = values.fill_null(0).to_numpy().astype(np.int64)
        ids[ids < 0] = -2
        ids[~valid] = -1
    else:
        ids = values.to_numpy()
        if ids.dtype.kind == "i" and (ids < 0).any():
            ids = np.where(ids < 0, -2, ids)
    if not piece.null_count:
        return ids.reshape(-1, top_k)
    rows = np.full((len(piece), top_k), -1, dtype=np.int64)
    rows[lengths >= 0] = ids.reshape(-1, top_k)
    return rows


def _lengths(piece: pa.Array) -> IntArray:
    """Number of elements of each row, -1 where the row is null."""
    lengths: IntArray
    if pa.types.is_fixed_size_list(piece.type):
        lengths = np.full(len(piece), piece.type.list_size, dtype=np.int64)
        lengths[~np.asarray(piece.is_valid())] = -1
    else:
        lengths = piece.value_lengths().fill_null(-1).to_numpy().astype(np.int64)
    return lengths


def _sequences(file: TraceFile) -> tuple[IntArray, tuple[int, ...] | tuple[str, ...]]:
    name = file.first_of("seq_id", "request_id")
    if pa.types.is_integer(file.schema.field(name).type):
        values, holes = file.integers(name)
        if not holes:
            ids, codes = np.unique(values, return_inverse=True)
            return codes.astype(np.int64), tuple(ids.tolist())
    else:
        text = file.texts(name)
        holes = bool((text.code_T < 0).any())
        if not holes:
            return text.code_T, text.names
    raise TraceError(
        "must not be null",
        where=file.place(name),
        fix="every token belongs to a sequence",
    )


def _tags(file: TraceFile) -> TextColumn:
    for name in ("tag", "domain"):
        if file.has(name):
            return file.texts(name)
    return file.no_texts()


def _optional_integers(file: TraceFile, name: str) -> IntArray | None:
    return file.integers(name)[0] if file.has(name) else None


def _complete_integers(file: TraceFile, name: str) -> IntArray | None:
    if not file.has(name):
        return None
    values, holes = file.integers(name)
    return None if holes else values


def _order(file: TraceFile) -> str | None:
    order = file.metadata.get("order")
    if order not in (None, "router", "sorted"):
        raise TraceError(
            "must be router or sorted",
            where=f"{file.path}: metadata moe_trace/order",
            value=order,
        )
    return order
