"""Parquet files read column by column in batches, every fault a TraceError."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from planner.arrays import IntArray
from planner.errors import TraceError

BATCH_ROWS = 65536
TRACE_KEY, COUNTS_KEY = b"moe_trace", b"moe_counts"
PHASES = ("prefill", "decode", "draft")
_MAGIC = b"PAR1"
_BUFFER_BYTES = 1 << 18
# What pyarrow raises on damaged bytes; names of columns are decoded by Python.
_FAULTS = (pa.ArrowException, OSError, UnicodeDecodeError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextColumn:
    """A column of few distinct texts.

    ``code_T`` indexes ``names``, which ascend; -1 where the value is missing.
    """

    code_T: IntArray
    names: tuple[str, ...]


class TraceFile:
    """An open trace file: its metadata and its columns.

    Parameters
    ----------
    long
        Read through small buffers: a file that is mapped counts as memory that is
        held, page by page, and may be larger than all there is.

    Raises
    ------
    TraceError
        On construction and on every read: missing, a folder, not Parquet, cut off
        or damaged, without the metadata of a trace.
    """

    def __init__(self, path: Path, *, long: bool = False) -> None:
        self.path = path
        _check_is_parquet(path)
        try:
            self._file = pq.ParquetFile(
                path,
                memory_map=not long,
                buffer_size=_BUFFER_BYTES if long else 0,
                # Read ahead, a row group would be kept until the file is closed.
                pre_buffer=not long,
            )
            self.schema: pa.Schema = self._file.schema_arrow
            self.names: tuple[str, ...] = tuple(self.schema.names)
        except _FAULTS as error:
            raise self._damaged() from error
        self.rows: int = self._file.metadata.num_rows
        if self.rows != self._rows_of_groups():
            raise self._damaged()
        keys: dict[bytes, bytes] = self.schema.metadata or {}
        self.is_counts = COUNTS_KEY in keys
        self.metadata = self._read_metadata(keys)

    def require_rows(self) -> None:
        """Refuse a file without rows."""
        if self.rows == 0:
            raise TraceError(
                "holds no rows", where=str(self.path), fix="record at least one token"
            )

    def has(self, name: str) -> bool:
        """Return whether the file has a column called ``name``."""
        return name in self.names

    def first_of(self, *names: str) -> str:
        """Return the first of ``names`` that is a column."""
        for name in names:
            if self.has(name):
                return name
        raise TraceError(
            "is missing",
            where=f"{self.path}: column {' or '.join(names)}",
            fix=f"the file has: {_some(self.names)}",
        )

    def place(self, column: str, row: int | None = None) -> str:
        """Return the words that point at a column or a value in it."""
        at = "" if row is None else f", row {row}"
        return f"{self.path}: column {column}{at}"

    def batches(self, column: str) -> Iterator[pa.Array]:
        """Yield a column piece by piece; no other column is read."""
        for batch in self.rows_of([column]):
            yield batch.column(0)

    def rows_of(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns a number of rows at a time; no other is read."""
        rows = 0
        try:
            for batch in self._file.iter_batches(BATCH_ROWS, columns=list(columns)):
                rows += batch.num_rows
                # Looks at every value: texts are UTF-8, codes are in their tables.
                batch.validate(full=True)
                yield batch
        except _FAULTS as error:
            raise self._damaged() from error
        if rows != self.rows:
            raise self._damaged()

    def integers(self, column: str) -> tuple[IntArray, bool]:
        """Return an integer column as int64, -1 where null, and if it has nulls.

        Raises
        ------
        TraceError
            If it is not of an integer type, negative or beyond int64.
        """
        kind = self.schema.field(column).type
        if not pa.types.is_integer(kind):
            raise TraceError("must be integers", where=self.place(column), value=kind)
        pieces, holes = [], False
        for piece in self.batches(column):
            holes = holes or piece.null_count > 0
            low = pc.min_max(piece).as_py()
            if low["min"] is not None and (low["min"] < 0 or low["max"] >= 2**63):
                bad = low["min"] if low["min"] < 0 else low["max"]
                raise TraceError(
                    "must be >= 0 and < 2^63", where=self.place(column), value=bad
                )
            pieces.append(pc.fill_null(piece.cast(pa.int64()), -1).to_numpy())
        return np.concatenate([*pieces, np.zeros(0, dtype=np.int64)]), holes

    def texts(self, column: str) -> TextColumn:
        """Return a text column as codes into its sorted distinct values."""
        kind = self.schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise TraceError("must be text", where=self.place(column), value=kind)
        codes, found = [np.zeros(0, dtype=np.int64)], dict[str, int]()
        for piece in self.batches(column):
            coded = (
                piece
                if pa.types.is_dictionary(piece.type)
                else pc.dictionary_encode(piece)
            )
            words = coded.dictionary.to_pylist()
            known = [
                -1 if word is None else found.setdefault(word, len(found))
                for word in words
            ]
            # The last place stands for null, which is coded -1.
            table = np.array([*known, -1], dtype=np.int64)
            codes.append(
                table[pc.fill_null(coded.indices.cast(pa.int64()), -1).to_numpy()]
            )
        used = np.concatenate(codes)
        return _sorted_texts(used, list(found))

    def phases(self) -> TextColumn:
        """Return the column ``phase``; all missing where there is none."""
        if not self.has("phase"):
            return self.no_texts()
        phase = self.texts("phase")
        for name in phase.names:
            if name not in PHASES:
                raise TraceError(
                    f"must be one of {', '.join(PHASES)}",
                    where=self.place("phase"),
                    value=name,
                )
        return phase

    def no_texts(self) -> TextColumn:
        """Return a text column without a value in any row."""
        return TextColumn(code_T=np.full(self.rows, -1, dtype=np.int64), names=())

    def _rows_of_groups(self) -> int:
        facts = self._file.metadata
        return sum(facts.row_group(i).num_rows for i in range(facts.num_row_groups))

    def _read_metadata(self, keys: dict[bytes, bytes]) -> dict[str, Any]:
        key = COUNTS_KEY if self.is_counts else TRACE_KEY
        where = f"{self.path}: metadata {key.decode()}"
        if key not in keys:
            raise TraceError(
                "is missing",
                where=f"{self.path}: metadata moe_trace or moe_counts",
                fix="write model facts there: num_experts, top_k, moe_layers",
            )
        try:
            data = json.loads(keys[key].decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise TraceError("is not JSON", where=where, value=keys[key]) from error
        if not isinstance(data, dict):
            raise TraceError("must be a JSON object", where=where, value=data)
        return data

    def _damaged(self) -> TraceError:
        return TraceError(
            "is a cut-off or damaged Parquet file",
            where=str(self.path),
            fix="copy or record it again",
        )


def positive_fact(file: TraceFile, name: str, most: int) -> int:
    """Return a whole number of the metadata between 1 and ``most``."""
    value = file.metadata.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        key = COUNTS_KEY if file.is_counts else TRACE_KEY
        raise TraceError(
            f"must be a whole number from 1 to {most}",
            where=f"{file.path}: metadata {key.decode()}/{name}",
            value="missing" if value is None else value,
        )
    return value


def _check_is_parquet(path: Path) -> None:
    if path.is_dir():
        raise TraceError("is a folder", where=str(path), fix="name the file in it")
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_MAGIC))
    except FileNotFoundError:
        raise TraceError(
            "does not exist", where=str(path), fix="check the path of the trace"
        ) from None
    except OSError as error:
        raise TraceError(f"cannot be read ({error})", where=str(path)) from error
    if head != _MAGIC:
        raise TraceError(
            "is not a Parquet file",
            where=str(path),
            value=head or "an empty file",
            fix="docs/traces.md describes the format",
        )


def _sorted_texts(code_T: IntArray, names: list[str]) -> TextColumn:
    used = sorted({names[code] for code in np.unique(code_T).tolist() if code >= 0})
    place = {name: code for code, name in enumerate(used)}
    table = np.array([*(place.get(name, -1) for name in names), -1], dtype=np.int64)
    return TextColumn(code_T=table[code_T], names=tuple(used))


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:12])
    return f"{shown}, …" if len(names) > 12 else shown
