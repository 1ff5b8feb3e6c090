"""Pieces of work beside each other on one GPU: a stream for each piece under way.

Work that a stream is given waits for nothing on another stream, so the GPU computes
one piece while the rows of another change places, and while this process prepares
what it will be given next. Only weights are shared, and those are there before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from planner.executor.stepping import Lane, anywhere
from planner.executor.timeline.record import COMPUTE, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Events of the GPU before and after what a piece gave it at one go."""

    piece: int
    start: Any
    end: Any


class Streams:
    """As many streams as pieces may be under way, taken in turn by the pieces.

    Parameters
    ----------
    at_once
        Streams; with 1 all pieces follow each other.
    timed
        Whether stretches are measured.
    """

    def __init__(
        self, device: torch.device, at_once: int = 2, timed: bool = False
    ) -> None:
        self._device, self._timed = device, timed
        self._outer = torch.cuda.current_stream(device)
        self._streams = [torch.cuda.Stream(device) for _ in range(at_once)]
        self._stretches: list[Stretch] = []
        # What was given to the GPU before, weights above all, is needed by all.
        for stream in self._streams:
            stream.wait_stream(self._outer)
        self._zero = self._mark()

    @contextmanager
    def lane(self, piece: int) -> Iterator[None]:
        """Give the GPU a piece's work on its own stream."""
        with torch.cuda.stream(self._streams[piece % len(self._streams)]):
            start = self._mark()
            yield
            if self._timed:
                self._stretches.append(
                    Stretch(piece=piece, start=start, end=self._mark())
                )

    def close(self) -> None:
        """Let what follows wait for all pieces."""
        for stream in self._streams:
            self._outer.wait_stream(stream)

    def intervals(self, rank: int = 0) -> list[Interval]:
        """Return when pieces were at work, by the clock of the GPU."""
        torch.cuda.synchronize(self._device)
        return [
            Interval(
                rank=rank,
                lane=COMPUTE,
                batch=each.piece,
                label=COMPUTE,
                start_s=1e-3 * self._zero.elapsed_time(each.start),
                end_s=1e-3 * self._zero.elapsed_time(each.end),
            )
            for each in self._stretches
        ]

    def _mark(self) -> Any:
        if not self._timed:
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


@contextmanager
def lanes_on(device: torch.device, at_once: int = 2) -> Iterator[Lane]:
    """Give each of the pieces under way a stream, where there are streams."""
    if device.type != "cuda":
        yield anywhere
        return
    streams = Streams(device, at_once)
    try:
        yield streams.lane
    finally:
        streams.close()
