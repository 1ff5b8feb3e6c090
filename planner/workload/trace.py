"""Reading a trace: a token trace or a counts table, whichever the file holds."""

from pathlib import Path

from planner.errors import TraceError
from planner.workload.counts import CountsTable, read_counts, workload_names
from planner.workload.parquet import TraceFile
from planner.workload.tokens import RoutingTrace, read_tokens

Trace = RoutingTrace | CountsTable

__all__ = ["CountsTable", "RoutingTrace", "Trace", "list_workloads", "load_trace"]


def load_trace(path: str | Path, *, workload: str | None = None) -> Trace:
    """Read a Parquet trace.

    Parameters
    ----------
    path
        File with metadata ``moe_trace`` (tokens) or ``moe_counts`` (counts).
    workload
        Which workload of a counts table; needed if it has several.

    Returns
    -------
    RoutingTrace or CountsTable

    Raises
    ------
    TraceError
        If the file or a value in it breaks rule 11.
    """
    file = TraceFile(Path(path))
    if file.is_counts:
        return read_counts(file, workload)
    if workload is not None:
        raise TraceError(
            "is a token trace, which has no workloads",
            where=str(path),
            value=f"#{workload}",
            fix="name the file alone",
        )
    return read_tokens(file)


def list_workloads(path: str | Path) -> tuple[str, ...]:
    """Return the workloads of a counts table; empty for a token trace."""
    file = TraceFile(Path(path))
    return workload_names(file) if file.is_counts else ()
