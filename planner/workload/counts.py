"""Counts tables: tokens per layer and expert of one workload, without sequences.

Every DP rank holds tokens/S of each expert (rule 11), so only ``copies`` and
``gpu_tokens`` can be computed from one.
"""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.arrays import IntArray
from planner.errors import TraceError
from planner.workload.parquet import TraceFile, positive_fact
from planner.workload.tokens import MAX_EXPERTS

_MOST_PAIRS = 2**62


@dataclass(frozen=True, kw_only=True, eq=False)
class CountsTable:
    """Counts of one workload.

    Attributes
    ----------
    path
        The file; None where the counts were given inline.
    workload, phase
        Which workload of the file this is; the phase is None if not said.
    tokens_LE
        (token, expert) pairs by layer and expert.
    """

    path: Path | None
    model: str
    metadata: Mapping[str, Any]
    num_experts: int
    top_k: int
    layer_numbers: tuple[int, ...]
    workload: str
    phase: str | None
    tokens_LE: IntArray


def workload_names(file: TraceFile) -> tuple[str, ...]:
    """Return the workloads of an open counts file, sorted."""
    return file.texts(file.first_of("workload")).names


def read_counts(file: TraceFile, workload: str | None) -> CountsTable:
    """Read one workload of an open counts file.

    Raises
    ------
    TraceError
        If the file has several workloads and none was named, or not this one; if a
        layer and expert appear twice; if an id is outside the model's experts.
    """
    file.require_rows()
    experts = positive_fact(file, "num_experts", MAX_EXPERTS)
    top_k = positive_fact(file, "top_k", experts)
    workloads = file.texts(file.first_of("workload"))
    chosen = _choose(file, workloads.names, workload)
    mine_T = workloads.code_T == workloads.names.index(chosen)
    layer, expert, tokens = (
        _complete(file, name)[mine_T] for name in ("layer", "expert", "tokens")
    )
    numbers = np.unique(layer)
    _check_layers(file, numbers.tolist())
    _check_experts(file, expert, experts)
    flat = np.searchsorted(numbers, layer) * experts + expert
    _check_once(file, flat, layer, expert)
    tokens_LE = np.zeros(numbers.size * experts, dtype=np.int64)
    tokens_LE[flat] = tokens
    _check_total(file, tokens)
    return CountsTable(
        path=file.path,
        model=str(file.metadata.get("model", "")),
        metadata=file.metadata,
        num_experts=experts,
        top_k=top_k,
        layer_numbers=tuple(numbers.tolist()),
        workload=chosen,
        phase=_phase(file, mine_T, chosen),
        tokens_LE=tokens_LE.reshape(numbers.size, experts),
    )


def inline_counts(data: Mapping[str, Any]) -> CountsTable:
    """Return counts given in a request.

    Parameters
    ----------
    data
        ``tokens`` [[count per expert] per layer], ``layers`` (their numbers in the
        model), ``top_k``, and optionally ``workload`` and ``phase``.

    Raises
    ------
    TraceError
        If a field is missing or of the wrong shape, or a count is negative.
    """
    try:
        layers = [operator.index(number) for number in data["layers"]]
        top_k = operator.index(data["top_k"])
        rows = [[operator.index(count) for count in row] for row in data["tokens"]]
    except (KeyError, TypeError) as error:
        raise TraceError(
            f"must have layers, top_k and tokens, all whole numbers ({error})",
            where="inline counts",
        ) from error
    experts = len(rows[0]) if rows else 0
    if len(rows) != len(layers) or any(len(row) != experts for row in rows):
        raise TraceError(
            "must have one row per layer and one count per expert",
            where="inline counts /tokens",
        )
    if layers != sorted(set(layers)) or not layers or layers[0] < 0:
        raise TraceError(
            "must ascend without repetition",
            where="inline counts /layers",
            value=layers,
        )
    if not 1 <= top_k <= experts <= MAX_EXPERTS:
        raise TraceError(
            f"must be from 1 to the number of experts, {experts}",
            where="inline counts /top_k",
            value=top_k,
        )
    if min(map(min, rows)) < 0 or sum(map(sum, rows)) > _MOST_PAIRS:
        raise TraceError(
            "must be >= 0 and add up to less than 2^62", where="inline counts /tokens"
        )
    phase = data.get("phase")
    return CountsTable(
        path=None,
        model=str(data.get("model", "")),
        metadata={},
        num_experts=experts,
        top_k=top_k,
        layer_numbers=tuple(layers),
        workload=str(data.get("workload", "inline")),
        phase=None if phase is None else str(phase),
        tokens_LE=np.array(rows, dtype=np.int64),
    )


def _choose(file: TraceFile, names: tuple[str, ...], wanted: str | None) -> str:
    listed = ", ".join(names)
    if wanted is not None:
        if wanted not in names:
            raise TraceError(
                "is not a workload of the file",
                where=file.place("workload"),
                value=wanted,
                fix=f"choose from {listed}",
            )
        return wanted
    if len(names) != 1:
        raise TraceError(
            f"holds {len(names)} workloads: {listed}",
            where=str(file.path),
            fix=f"name one, as in {file.path.name}#{names[0] if names else 'NAME'}",
        )
    return names[0]


def _complete(file: TraceFile, name: str) -> IntArray:
    values, holes = file.integers(file.first_of(name))
    if holes:
        raise TraceError("must not be null", where=file.place(name))
    return values


def _check_layers(file: TraceFile, numbers: list[int]) -> None:
    said = file.metadata.get("moe_layers")
    if said is not None and said != numbers:
        raise TraceError(
            "must list the layers of the column layer, ascending",
            where=f"{file.path}: metadata moe_counts/moe_layers",
            value=said,
            fix=f"the column has {numbers}",
        )


def _check_experts(file: TraceFile, expert: IntArray, experts: int) -> None:
    if expert.size and int(expert.max()) >= experts:
        raise TraceError(
            f"must be an expert id from 0 to {experts - 1}",
            where=file.place("expert"),
            value=int(expert.max()),
        )


def _check_once(
    file: TraceFile, flat: IntArray, layer: IntArray, expert: IntArray
) -> None:
    _, first = np.unique(flat, return_index=True)
    if first.size != flat.size:
        again = np.setdiff1d(np.arange(flat.size), first)[0]
        raise TraceError(
            "counts an expert of a layer twice",
            where=str(file.path),
            value=f"layer {layer[again]}, expert {expert[again]}",
            fix="add the rows up, or give them another workload",
        )


def _check_total(file: TraceFile, tokens: IntArray) -> None:
    if sum(tokens.tolist()) > _MOST_PAIRS:
        raise TraceError("must add up to less than 2^62", where=file.place("tokens"))


def _phase(file: TraceFile, mine_T: np.ndarray[Any, Any], chosen: str) -> str | None:
    phases = file.phases()
    codes = np.unique(phases.code_T[mine_T]).tolist()
    if len(codes) > 1:
        raise TraceError(
            "must be one phase per workload",
            where=file.place("phase"),
            value=chosen,
            fix="give each phase a workload of its own",
        )
    return phases.names[codes[0]] if codes[0] >= 0 else None
