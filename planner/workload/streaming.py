"""A token trace of any length: only some rows of its choices are in memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from planner.errors import TraceError
from planner.workload.homes import (
    AttentionLayout,
    assign_homes,
    running_index,
    source_gpus,
)
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parquet import TraceFile
from planner.workload.parts import TokenPart
from planner.workload.presets import fits
from planner.workload.split import of_phase
from planner.workload.tokens import (
    RoutingTrace,
    checked_rows,
    layer_columns,
    read_tokens,
)


class TokenStream:
    """A trace file whose tokens come in chunks, in file order.

    Columns with one number per token (sequences, tags, ranks) are read whole, for homes
    follow from the whole file (rule 12); choices, 16 bytes per token and layer at
    K = 8, are not.

    Raises
    ------
    TraceError
        On construction or while chunks are drawn: a counts table, a trace of
        another model, a column or value that breaks rule 11.
    """

    def __init__(self, path: Path, model: MoEModelSpec) -> None:
        self._file = TraceFile(path, long=True)
        if self._file.is_counts:
            raise TraceError(
                "counts tokens by expert and has none to follow",
                where=str(path),
                fix="give a token trace",
            )
        self.trace: RoutingTrace = read_tokens(self._file, choices=False)
        if found := fits(self.trace, model):
            raise TraceError(
                f"does not fit model {model.name}: {'; '.join(found)}",
                where=str(path),
                fix="give a trace of the plan's model",
            )

    def chunks(
        self, layout: AttentionLayout, homes: str | None, phase: str | None
    ) -> Iterator[TokenPart]:
        """Yield the tokens of a phase, with homes and ordinals of the whole file."""
        trace, file = self.trace, self._file
        rank_T = assign_homes(trace, homes, layout.dp).rank_T
        source_T = source_gpus(rank_T, layout)
        kept_T, _ = of_phase(trace, phase)
        ordinal_T = np.zeros(trace.token_count, dtype=np.int64)
        ordinal_T[kept_T] = running_index(source_T[kept_T])
        names = list(layer_columns(file).values())
        begin = 0
        for batch in file.rows_of(names):
            shape = (len(names), batch.num_rows, trace.top_k)
            experts_LTK = np.empty(shape, dtype=np.int16)
            for index, name in enumerate(names):
                experts_LTK[index] = checked_rows(
                    file,
                    name,
                    batch.column(name),
                    begin,
                    top_k=trace.top_k,
                    experts=trace.num_experts,
                )
            kept = np.flatnonzero(kept_T[begin : begin + batch.num_rows])
            row_T = begin + kept
            yield TokenPart(
                experts_LTK=experts_LTK[:, kept],
                source_T=source_T[row_T],
                rank_T=rank_T[row_T],
                ordinal_T=ordinal_T[row_T],
                row_T=row_T,
                sequence_T=trace.sequence_T[row_T],
                tag_T=trace.tag_T[row_T],
            )
            begin += batch.num_rows
