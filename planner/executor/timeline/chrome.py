"""The timeline as Chrome trace events, for chrome://tracing or Perfetto."""

from collections.abc import Iterable
from typing import Any

from planner.executor.timeline.record import COMPUTE, Interval


def chrome_trace(intervals: Iterable[Interval]) -> dict[str, Any]:
    """Return the JSON object format: a process per rank, compute and network lanes.

    Network intervals of two batches may overlap, so each batch parity has a lane of
    its own. Times are microseconds.

    References
    ----------
    Trace Event Format, Google (docs of the Catapult project).
    """
    events: list[dict[str, Any]] = []
    named: set[tuple[int, int]] = set()
    for each in intervals:
        lane = 0 if each.lane == COMPUTE else 1 + each.batch % 2
        if (each.rank, lane) not in named:
            named.add((each.rank, lane))
            events += _names(each.rank, lane)
        events.append(
            {
                "name": each.label,
                "cat": each.lane,
                "ph": "X",
                "ts": round(each.start_s * 1e6, 3),
                "dur": round((each.end_s - each.start_s) * 1e6, 3),
                "pid": each.rank,
                "tid": lane,
                "args": {"batch": each.batch},
            }
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _names(rank: int, lane: int) -> list[dict[str, Any]]:
    title = "compute" if lane == 0 else f"network, {('even', 'odd')[lane - 1]} batches"
    return [
        _metadata("process_name", rank, lane, f"rank {rank}"),
        _metadata("thread_name", rank, lane, title),
    ]


def _metadata(kind: str, rank: int, lane: int, name: str) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": rank, "tid": lane, "args": {"name": name}}
