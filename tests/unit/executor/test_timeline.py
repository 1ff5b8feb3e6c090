"""The timeline: what overlapped, and what others are shown of it."""

from xml.etree import ElementTree

import pytest

from planner.executor.timeline.chrome import chrome_trace
from planner.executor.timeline.picture import busiest, svg
from planner.executor.timeline.record import (
    COMPUTE,
    NETWORK,
    Interval,
    Recorder,
    overlap,
)


def interval(
    lane: str, start: float, end: float, *, rank: int = 0, batch: int = 0
) -> Interval:
    label = "dispatch" if lane == NETWORK else COMPUTE
    return Interval(
        rank=rank, lane=lane, batch=batch, label=label, start_s=start, end_s=end
    )


TWO = [
    interval(COMPUTE, 0, 3),
    interval(NETWORK, 2, 6),
    interval(NETWORK, 5, 7, batch=1),
    interval(COMPUTE, 4, 5, batch=1),
]


def test_overlap_counts_every_second_once() -> None:
    """Law: 4 s at work, 5 s on the way, 2 s both: by hand."""
    seen = overlap(TWO)
    assert (seen.compute_s, seen.network_s, seen.both_s) == (4, 5, 2)
    assert seen.hidden == 0.5


@pytest.mark.parametrize("lanes", [[], [COMPUTE], [NETWORK]])
def test_nothing_is_hidden_where_one_of_both_is_missing(lanes: list[str]) -> None:
    """Law: a share of nothing is 0."""
    assert overlap([interval(lane, 0, 1) for lane in lanes]).hidden == 0


class Gone:
    """Rows that travelled."""

    label, posted, arrived = "combine", 12.0, 15.0


def test_times_count_from_the_common_start() -> None:
    """Law: seconds since the ranks started together, whatever the clock says."""
    recorder = Recorder(rank=3, zero=10.0)
    recorder.computed(1, 11.0, 12.0)
    recorder.travelled(1, Gone())
    assert recorder.intervals == [
        Interval(rank=3, lane=COMPUTE, batch=1, label=COMPUTE, start_s=1, end_s=2),
        Interval(rank=3, lane=NETWORK, batch=1, label="combine", start_s=2, end_s=5),
    ]


def test_chrome_events_are_microseconds_in_lanes_that_do_not_overlap() -> None:
    """Law: a process per rank; the rows of two batches in a lane each."""
    trace = chrome_trace([*TWO, interval(COMPUTE, 1, 2, rank=1)])
    events = [each for each in trace["traceEvents"] if each["ph"] == "X"]
    assert [(e["pid"], e["tid"], e["ts"], e["dur"]) for e in events] == [
        (0, 0, 0, 3e6), (0, 1, 2e6, 4e6), (0, 2, 5e6, 2e6),
        (0, 0, 4e6, 1e6), (1, 0, 1e6, 1e6),
    ]  # fmt: skip
    names = [each for each in trace["traceEvents"] if each["name"] == "thread_name"]
    assert len(names) == 4


def test_the_picture_draws_what_is_in_its_window() -> None:
    """Law: valid XML; an interval outside the window leaves no mark."""
    whole = ElementTree.fromstring(svg(TWO, title="a < b"))
    cut = ElementTree.fromstring(svg(TWO, title="a < b", window=(0, 1.5)))
    space = "{http://www.w3.org/2000/svg}"

    def bars(picture: ElementTree.Element) -> int:
        return len([r for r in picture.iter(f"{space}rect") if len(r)])

    assert bars(whole) == 4
    assert bars(cut) == 1
    assert whole.findtext(f"{space}title") == "a < b"


def test_the_busiest_window_is_around_the_travel() -> None:
    """Law: never outside of what there is, and never longer than asked."""
    late = [interval(COMPUTE, 0, 100), *(interval(NETWORK, 90, 91) for _ in range(3))]
    assert busiest(late, 4) == (88, 92)
    assert busiest(late, 40) == (60, 100)
    assert busiest(late, 400) == (0, 100)
