"""Pieces of work on streams of their own; here with streams that only take notes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.executor.counter import count
from planner.executor.timeline.record import overlap
from planner.plan import PlacementPlan
from tests.unit.executor.placed import (
    layout_of,
    part_of,
    random_experts,
    random_slots,
)
from tests.unit.executor.test_replay import SPEC

torch = pytest.importorskip("torch")

from planner.executor import forced  # noqa: E402
from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.stepping import Steps, interleave  # noqa: E402
from planner.executor.streams import Streams, lanes_on  # noqa: E402
from planner.executor.wire.local import InOrder, LocalWire  # noqa: E402

pytestmark = pytest.mark.torch
GPU = torch.device("cuda", 0)


class NotedGpu:
    """A GPU on which a unit of work takes a second of its stream's time."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.streams = 0
        self.current = self.stream(None)

    def stream(self, device: Any) -> Any:
        gpu = self

        class Stream:
            clock, name = 0.0, f"s{gpu.streams}"

            def wait_stream(self, other: Any) -> None:
                gpu.log.append(f"{self.name} waits for {other.name}")
                self.clock = max(self.clock, other.clock)

        self.streams += 1
        return Stream()

    def event(self, enable_timing: bool) -> Any:
        gpu = self

        class Event:
            at = 0.0

            def record(self) -> None:
                self.at = gpu.current.clock

            def elapsed_time(self, later: Any) -> float:
                return 1e3 * float(later.at - self.at)

        return Event()

    @contextmanager
    def within(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def work(self, seconds: float) -> None:
        self.current.clock += seconds


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> NotedGpu:
    """Put the noted GPU in the place of CUDA."""
    noted = NotedGpu()
    for name, value in {
        "Stream": noted.stream,
        "Event": noted.event,
        "stream": noted.within,
        "current_stream": lambda device: noted.current,
        "synchronize": lambda device: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return noted


def piece(gpu: NotedGpu, hops: int) -> Steps[str]:
    for _ in range(hops):
        gpu.work(1.0)
        yield InOrder("dispatch")
    gpu.work(1.0)
    return gpu.current.name


def test_pieces_run_beside_each_other_on_streams_of_their_own(gpu: NotedGpu) -> None:
    """Law: two pieces on two streams take the time of one, and are seen to."""
    streams = Streams(GPU, 2, timed=True)
    names = interleave([piece(gpu, 3), piece(gpu, 3)], lane=streams.lane)
    streams.close()
    assert names == ["s1", "s2"]
    assert gpu.current.clock == 4.0
    beside = overlap_of(streams)
    assert beside == (4.0, 4.0, 4.0)


def test_pieces_on_one_stream_follow_each_other(gpu: NotedGpu) -> None:
    """Law: with one stream nothing is beside anything."""
    streams = Streams(GPU, 1, timed=True)
    interleave([piece(gpu, 1), piece(gpu, 1)], lane=streams.lane)
    streams.close()
    assert gpu.current.clock == 4.0
    assert overlap_of(streams) == (2.0, 2.0, 0.0)


def test_pieces_come_after_what_was_there_and_before_what_follows(
    gpu: NotedGpu,
) -> None:
    """Law: streams wait for the outer stream at first, which waits for them at last."""
    gpu.work(5.0)
    with lanes_on(GPU) as lane:
        interleave([piece(gpu, 0), piece(gpu, 1)], lane=lane)
    assert gpu.log == [
        *("s1 waits for s0", "s2 waits for s0"),
        *("s0 waits for s1", "s0 waits for s2"),
    ]
    assert gpu.current.clock == 7.0


def overlap_of(streams: Streams) -> tuple[float, float, float]:
    """Seconds that piece 0 and piece 1 were at work, and both."""
    found = overlap(
        replace(each, lane="compute" if each.batch == 0 else "network")
        for each in streams.intervals()
    )
    return found.compute_s, found.network_s, found.both_s


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain", "direct"])
def test_taking_turns_changes_nothing(
    traffic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: batches that alternate at every move are counted and computed as ever."""
    rng = np.random.default_rng(3)
    slots = np.stack([random_slots(SPEC.experts, 4, 3, rng) for _ in range(2)])
    placement = Placement(
        plan=PlacementPlan(layer_numbers=(1, 2), slots_LGJ=slots),
        layout=layout_of([0, 0, 1, 1]),
        traffic=traffic,
        selection="even",
        endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
    )
    part = part_of(random_experts(2, 90, SPEC.top_k, SPEC.experts, rng), 4, rng)
    counted = count(
        placement.plan,
        part,
        layout=placement.layout,
        model_spec=SPEC,
        traffic=traffic,
        selection="even",
        endpoint=placement.endpoint,
    )
    host = LocalHost(4)
    monkeypatch.setattr(host, "wire", lambda **_: LocalWire(4, turns=True))
    monkeypatch.setattr(forced, "BATCH_TOKENS", 20)
    moved = forced.replay_forced(host, placement, part, model_spec=SPEC)
    assert np.array_equal(moved.dispatch_LGG, counted.dispatch_LGG)
    assert np.array_equal(moved.combine_LGG, counted.combine_LGG)
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5
