"""Intervals of work and of travel, and how much of one hides behind the other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from planner.executor.stepping import Pending

COMPUTE, NETWORK = "compute", "network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One stretch of time on one rank.

    Attributes
    ----------
    lane
        ``compute`` or ``network``.
    batch
        Which batch it was for; two are on their way at a time.
    label
        What was done: ``compute``, ``dispatch``, ``combine``, ``row counts``, …
    start_s, end_s
        Seconds since the ranks started together.
    """

    rank: int
    lane: str
    batch: int
    label: str
    start_s: float
    end_s: float


@dataclass(slots=True)
class Recorder:
    """Notes the intervals of one rank; a ``Watch`` of stepping.

    Attributes
    ----------
    zero
        Second of ``time.perf_counter`` at which the ranks started together.
    """

    rank: int
    zero: float
    intervals: list[Interval] = field(default_factory=list)

    def computed(self, piece: int, start: float, end: float) -> None:
        """Note that a batch was at work."""
        self._note(COMPUTE, piece, COMPUTE, start, end)

    def travelled(self, piece: int, pending: Pending) -> None:
        """Note what a batch has waited for."""
        self._note(NETWORK, piece, pending.label, pending.posted, pending.arrived)

    def _note(
        self, lane: str, batch: int, label: str, start: float, end: float
    ) -> None:
        self.intervals.append(
            Interval(
                rank=self.rank,
                lane=lane,
                batch=batch,
                label=label,
                start_s=start - self.zero,
                end_s=end - self.zero,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """How much of computing and travelling happened at the same time, on one rank.

    Attributes
    ----------
    compute_s, network_s, both_s
        Seconds in which the rank computed, had rows on their way, and both.
    """

    compute_s: float
    network_s: float
    both_s: float

    @property
    def hidden(self) -> float:
        """Share of the smaller of both that the other one hides."""
        smaller = min(self.compute_s, self.network_s)
        return self.both_s / smaller if smaller else 0.0


def overlap(intervals: Iterable[Interval]) -> Overlap:
    """Measure the intervals of one rank."""
    lanes: dict[str, list[tuple[float, float]]] = {COMPUTE: [], NETWORK: []}
    for each in intervals:
        lanes[each.lane].append((each.start_s, each.end_s))
    compute, network = (_merged(lanes[lane]) for lane in (COMPUTE, NETWORK))
    together = _length(compute) + _length(network)
    return Overlap(
        compute_s=_length(compute),
        network_s=_length(network),
        both_s=together - _length(_merged([*compute, *network])),
    )


def _merged(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join stretches that touch; in order."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _length(stretches: Sequence[tuple[float, float]]) -> float:
    return sum(end - start for start, end in stretches)
