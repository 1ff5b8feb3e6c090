"""Layers that start on partial batches, on disjoint GPUs and on shared ones.

    python -m benchmarks.pipelined_layers [--repeats 5]

Two gloo ranks under ``direct``. *disjoint*: each holds the experts of one of two
layers, and all tokens live on the first, so that a whole batch keeps one rank
waiting for the other; cut up, the second layer computes part k while the first
computes part k + 1. *shared*: each rank holds half of the experts of both layers, so
that nothing is gained but what travel hides. Seconds by number of parts, and the
share of the time in which both ranks compute.
"""

import argparse
import importlib
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from planner.executor.direct import PAUSES_OF_LAYER, Standing
from planner.executor.host import ProcessHost
from planner.executor.model.feed_forward import swiglu
from planner.executor.placement import Placement, one_thread
from planner.executor.stepping import Steps, interleave
from planner.executor.timeline.record import COMPUTE, Interval, Recorder, overlap
from planner.executor.world.standing import StandingWorld
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan

RANKS, LAYERS, EXPERTS, TOP_K = 2, 2, 4, 2
HIDDEN, FFN, TOKENS = 192, 512, 4096
SLOTS = {
    "disjoint": [[[0, 1, 2, 3], [-1] * 4], [[-1] * 4, [0, 1, 2, 3]]],
    "shared": [[[0, 1], [2, 3]], [[0, 1], [2, 3]]],
}


@dataclass(frozen=True)
class Run:
    """Seconds of one run, and what was noted of it."""

    seconds: float
    intervals: list[Interval]


def run(world: Any, regime: str, parts: int) -> Run:
    """Move all tokens of one rank through both layers, in parts."""
    host = ProcessHost(world.group, world.device)
    slots = np.asarray(SLOTS[regime], dtype=np.int16)
    placement = Placement(
        plan=PlacementPlan(layer_numbers=(0, 1), slots_LGJ=slots),
        layout=ParallelLayout(
            domain_G=np.zeros(RANKS, dtype=np.int64),
            ep=RANKS,
            attention_groups=tuple((rank,) for rank in range(RANKS)),
        ),
        traffic="direct",
        selection="nearest",
        endpoint="local_nic",
    )
    generator = torch.Generator().manual_seed(7)
    w_in = torch.randn(EXPERTS, HIDDEN, 2 * FFN, generator=generator) * HIDDEN**-0.5
    w_out = torch.randn(EXPERTS, FFN, HIDDEN, generator=generator) * FFN**-0.5
    placed = [placement.direct(layer, (w_in, w_out), swiglu, host) for layer in (0, 1)]
    choices = [placement.choice(layer, host) for layer in (0, 1)]
    scores = torch.rand(TOKENS, EXPERTS, generator=generator)
    ids_TK = scores.topk(TOP_K, dim=1).indices
    x_TH = torch.randn(TOKENS, HIDDEN, generator=generator)
    mine = torch.arange(TOKENS if world.rank == 0 or regime == "shared" else 0)
    if regime == "shared":
        mine = mine[world.rank :: RANKS]

    def batch(token_N: torch.Tensor) -> Steps[Any]:
        rank_N = torch.full((len(token_N),), world.rank)
        standing = Standing(x_NH=x_TH[token_N], token_N=token_N, rank_N=rank_N)
        for layer, choice in zip(placed, choices, strict=True):
            ids_NK = ids_TK[standing.token_N]
            none_N = torch.zeros_like(standing.rank_N)
            slots_NK = choice.of(ids_NK, standing.rank_N, none_N, none_N)
            gates_NK = torch.full(ids_NK.shape, 1 / TOP_K)
            standing, _ = yield from layer.steps(standing, gates_NK, slots_NK)
        return standing

    with one_thread(), torch.no_grad():
        host.everyone(None)
        recorder = Recorder(world.rank, time.perf_counter())
        start = time.perf_counter()
        interleave(
            map(batch, mine.tensor_split(parts)), LAYERS + 1, recorder, PAUSES_OF_LAYER
        )
        return Run(time.perf_counter() - start, recorder.intervals)


def both_compute(runs: list[Run]) -> float:
    """Share of the time in which both ranks compute."""
    first, second = (
        [each for each in run.intervals if each.lane == COMPUTE] for run in runs
    )
    as_network = [
        Interval(
            rank=0,
            lane="network",
            batch=0,
            label="",
            start_s=each.start_s,
            end_s=each.end_s,
        )
        for each in second
    ]
    return overlap([*first, *as_network]).both_s / runs[0].seconds


def main() -> None:
    """Print seconds by regime and number of parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    # Ranks look the function up by its module, which is not __main__ there.
    own = importlib.import_module("benchmarks.pipelined_layers")
    with StandingWorld(RANKS) as world:
        for regime in SLOTS:
            world.run(own.run, regime, 1)
            whole = 0.0
            for parts in (1, 2, 4, 8):
                runs = [world.run(own.run, regime, parts) for _ in range(repeats)]
                seconds = statistics.median(
                    max(r.seconds for r in each) for each in runs
                )
                whole = whole or seconds
                share = statistics.median(own.both_compute(each) for each in runs)
                print(
                    f"{regime:9} {parts} parts: {1e3 * seconds:6.1f} ms, "
                    f"{seconds / whole:.2f} of the whole batch's; both ranks compute "
                    f"{share:.0%} of the time"
                )


if __name__ == "__main__":
    main()
