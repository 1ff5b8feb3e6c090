"""Writing a token trace in the format that :mod:`planner.workload.trace` reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from planner.arrays import BoolArray
from planner.workload.parquet import BATCH_ROWS, TRACE_KEY

Texts = str | Sequence[str]
Integers = Sequence[int] | np.ndarray[Any, Any]


def write_trace(
    path: str | Path,
    *,
    metadata: Mapping[str, Any],
    seq_id: Integers,
    pos: Integers,
    tag: Texts,
    phase: Texts,
    experts: Mapping[int, np.ndarray[Any, Any]],
    token_id: Integers | None = None,
    rank: Integers | None = None,
    step: Integers | None = None,
) -> None:
    """Write a trace as Parquet (zstd), one row per token.

    Parameters
    ----------
    metadata
        Facts for ``moe_trace``; must have ``num_experts`` and ``top_k``;
        ``moe_layers`` and ``tokens`` are filled in from ``experts``.
    seq_id, pos, token_id, rank, step
        One integer >= 0 per token.
    tag, phase
        One text per token, or one text for all.
    experts
        By layer number: logical expert ids [T, K]; -1 writes a null.

    Raises
    ------
    ValueError
        If lengths, K or ids do not agree with each other or the metadata.
    """
    rows, top_k = len(seq_id), int(metadata["top_k"])
    num_experts = int(metadata["num_experts"])
    facts = {**metadata, "moe_layers": sorted(experts), "tokens": rows}
    columns: dict[str, pa.Array] = {"seq_id": pa.array(seq_id, pa.uint32())}
    optional = {"step": (step, pa.uint32()), "rank": (rank, pa.uint16())}
    for name, (values, kind) in optional.items():
        if values is not None:
            columns[name] = pa.array(values, kind)
    columns["pos"] = pa.array(pos, pa.uint32())
    columns["phase"] = _texts(phase, rows, pa.int8())
    columns["tag"] = _texts(tag, rows, pa.int16())
    if token_id is not None:
        columns["token_id"] = pa.array(token_id, pa.uint32())
    for number in sorted(experts):
        columns[f"e{number:02d}"] = _layer(experts[number], rows, top_k, num_experts)
    table = pa.table(columns).replace_schema_metadata(
        {TRACE_KEY: json.dumps(facts, ensure_ascii=False)}
    )
    pq.write_table(table, path, compression="zstd", row_group_size=BATCH_ROWS)


def _texts(values: Texts, rows: int, index: pa.DataType) -> pa.Array:
    if isinstance(values, str):
        codes = np.zeros(rows, dtype=np.int64)
        coded = pa.DictionaryArray.from_arrays(codes, pa.array([values]))
    else:
        coded = pa.array(values, pa.string()).dictionary_encode()
    return coded.cast(pa.dictionary(index, pa.string()))


def _layer(
    ids_TK: np.ndarray[Any, Any], rows: int, top_k: int, num_experts: int
) -> pa.Array:
    """One layer's ids as lists of fixed size; a row of only -1 becomes a null row."""
    ids = np.asarray(ids_TK)
    if ids.shape != (rows, top_k):
        raise ValueError(f"experts have shape {ids.shape}, not ({rows}, {top_k})")
    if ids.size and not -1 <= int(ids.min()) <= int(ids.max()) < num_experts:
        raise ValueError(f"expert ids must be from -1 to {num_experts - 1}")
    kind = pa.uint8() if num_experts <= 256 else pa.uint16()
    missing: BoolArray = ids < 0
    flat = np.where(missing, 0, ids).astype(kind.to_pandas_dtype()).ravel()
    values = pa.array(flat, kind, mask=missing.ravel())
    empty = missing.all(axis=1)
    return pa.FixedSizeListArray.from_arrays(
        values, top_k, mask=pa.array(empty) if empty.any() else None
    )
