"""How much of the travel double buffering hides, on two gloo ranks.

    python -m benchmarks.overlap [--repeats 20] [--picture FILE.svg] [--trace FILE.json]

In every layer each rank computes what attention would, sends rows to experts, computes
those and gets rows back, while a link that is slower than there is carries the rows:
every shipment takes a fixed time, without using the processor; row counts are not
slowed down. The delay is set so that travel takes as long as computing. Batches run
once one after the other and once two at a time; what is hidden is the time saved over
the smaller of computing and travelling, of the rank where it is less. Beside it the
share of the smaller lane that the other overlaps, by the intervals of the timeline.
"""

import argparse
import importlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from planner.executor.host import ProcessHost
from planner.executor.model.feed_forward import swiglu
from planner.executor.placement import Placement, one_thread
from planner.executor.stepping import Steps, interleave
from planner.executor.timeline.chrome import chrome_trace
from planner.executor.timeline.picture import svg
from planner.executor.timeline.record import Recorder, overlap
from planner.executor.wire.delay import Delay
from planner.executor.world.standing import StandingWorld
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan

RANKS, LAYERS, EXPERTS, TOP_K = 2, 6, 8, 2
HIDDEN, FFN, TOKENS, BATCHES = 128, 256, 512, 6

BEFORE = TOP_K
"""Dense blocks before the experts, in the place of attention: as much work."""


class Work:
    """All layers of one rank, batch by batch."""

    def __init__(self, host: ProcessHost) -> None:
        generator = torch.Generator().manual_seed(7)
        slots = np.arange(EXPERTS, dtype=np.int16).reshape(RANKS, -1)
        placement = Placement(
            plan=PlacementPlan(
                layer_numbers=tuple(range(LAYERS)),
                slots_LGJ=np.tile(slots, (LAYERS, 1, 1)),
            ),
            layout=ParallelLayout(
                domain_G=np.zeros(RANKS, dtype=np.int64),
                ep=RANKS,
                attention_groups=tuple((rank,) for rank in range(RANKS)),
            ),
            traffic="copies",
            selection="nearest",
            endpoint="local_nic",
        )
        w_in = torch.randn(EXPERTS, HIDDEN, 2 * FFN, generator=generator)
        w_out = torch.randn(EXPERTS, FFN, HIDDEN, generator=generator)
        both = (w_in * HIDDEN**-0.5, w_out * FFN**-0.5)
        self.placed = [
            placement.experts(layer, both, swiglu, host) for layer in range(LAYERS)
        ]
        self.own = (both[0][0], both[1][0])
        self.rank = host.hosted.start
        self.x = torch.randn(TOKENS, HIDDEN, generator=generator)
        scores = torch.rand(TOKENS, EXPERTS, generator=generator)
        self.slots = scores.topk(TOP_K, dim=1).indices
        self.gates = torch.full((TOKENS, TOP_K), 1 / TOP_K)

    def batch(self, number: int) -> Steps[Any]:
        """Send one batch through all layers."""
        x, rank = self.x, torch.full((TOKENS,), self.rank)
        for placed in self.placed:
            for _ in range(BEFORE):
                x = x + swiglu(x, *self.own) / BEFORE
            x = x + (yield from placed.steps(x, self.gates, self.slots, rank))
        return x


@dataclass(frozen=True)
class Run:
    """Seconds of one run, and what was noted of it."""

    seconds: float
    recorder: Recorder


def run(world: Any, delay_s: float, at_once: int) -> Run:
    """Run all batches on one rank."""
    host = ProcessHost(world.group, world.device, Delay(seconds=delay_s))
    with one_thread(), torch.no_grad():
        work = Work(host)
        host.everyone(None)
        recorder = Recorder(host.hosted.start, time.perf_counter())
        start = time.perf_counter()
        interleave(map(work.batch, range(BATCHES)), at_once, recorder)
        return Run(time.perf_counter() - start, recorder)


def hidden(alone: list[Run], together: list[Run]) -> float:
    """Return the share of the smaller of both that is hidden, of the slower rank."""
    shares = []
    for one, two in zip(alone, together, strict=True):
        seen = overlap(one.recorder.intervals)
        saved = one.seconds - two.seconds
        shares.append(saved / min(seen.compute_s, seen.network_s))
    return min(shares)


def main() -> None:
    """Print the share hidden, repeat by repeat."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--trace", type=Path)
    options = parser.parse_args()
    with StandingWorld(RANKS) as world:
        # Ranks look the function up by its module, which is not __main__ there.
        own = importlib.import_module("benchmarks.overlap")
        world.run(own.run, 0.0, 1)
        calm = min(
            overlap(each[0].recorder.intervals).compute_s
            for each in (world.run(own.run, 0.0, 1) for _ in range(3))
        )
        delay_s = calm / (2 * LAYERS * BATCHES)
        print(f"computing {1e3 * calm:.0f} ms; each shipment {1e3 * delay_s:.2f} ms")
        shares, seen, last = [], [], []
        for _ in range(options.repeats):
            alone = world.run(own.run, delay_s, 1)
            last = world.run(own.run, delay_s, 2)
            shares.append(hidden(alone, last))
            seen += [overlap(run.recorder.intervals).hidden for run in last]
    print("hidden:", " ".join(f"{share:.2f}" for share in sorted(shares)))
    print(f"median of {len(shares)}, by time saved: {statistics.median(shares):.3f}")
    print(f"median of {len(seen)}, by intervals:  {statistics.median(seen):.3f}")
    intervals = [each for run in last for each in run.recorder.intervals]
    if options.trace:
        options.trace.write_text(json.dumps(chrome_trace(intervals)))
    if options.picture:
        options.picture.write_text(svg(intervals, title="Two gloo ranks"))


if __name__ == "__main__":
    main()
