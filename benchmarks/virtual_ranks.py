"""tiny-moe on 32 virtual ranks of one process against the unsharded model.

    python -m benchmarks.virtual_ranks [--repeats 5]

Both run the whole recorded text with one thread, turn about, and only the placed
pass moves rows; nothing is compared while the clock runs. Processor seconds, the
least of the repeats, and their ratio by traffic mode, one copy of each expert and
with two redundant experts per GPU.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.back_ends import TextJob, job_of
from planner import bundled
from planner.executor.host import LocalHost
from planner.executor.model.moe import RoutedFn
from planner.executor.model.weights import load_model
from planner.executor.placement import Placement, one_thread
from planner.executor.stepping import Steps, finish
from planner.executor.text.base import TextBatch
from planner.executor.text.round_trips import RoundTripPass
from planner.executor.text.run import sequence_batches
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

HOSTS = [8] * 4
MODES = ("copies", "dedup_gpu", "dedup_domain")


class Runs:
    """The same batches unsharded and placed."""

    def __init__(self, text: TextJob, trace: RoutingTrace) -> None:
        job = text.job
        weights = bundled.tiny_moe_weights()
        self.model = load_model(weights, weights.with_suffix(".json"))
        instance = job.instance
        placement = Placement(
            plan=job.plan,
            layout=instance.layout,
            traffic=instance.traffic,
            selection=instance.selection,
            endpoint=instance.endpoint,
        )
        host = LocalHost(sum(HOSTS))
        self.placed_pass = RoundTripPass(
            host, placement, job.part, self.model, instance.model
        )
        assert trace.token_id_T is not None
        rows = slice(job.part.token_count)
        self.batches = [
            TextBatch.of(rows_BS, trace.token_id_T, host.device)
            for rows_BS in sequence_batches(trace.sequence_T[rows])
        ]

    def unsharded(self) -> None:
        """Run the model alone."""
        for batch in self.batches:
            mask_BS = batch.rows_BS >= 0
            finish(self.model.steps(batch.text_BS, mask_BS=mask_BS))

    def placed(self) -> None:
        """Run it with its experts on the ranks."""
        for batch in self.batches:
            by = {
                number: self._routed(index, batch.token_N)
                for index, number in enumerate(self.placed_pass.numbers)
            }
            mask_BS = batch.rows_BS >= 0
            finish(self.model.steps(batch.text_BS, mask_BS=mask_BS, routed_by=by))

    def _routed(self, index: int, token_N: Tensor) -> RoutedFn:
        run = self.placed_pass

        def routed(x_NH: Tensor, ids_NK: Tensor, gates_NK: Tensor) -> Steps[Tensor]:
            slots_NK = run.homes.slots(run.choices[index], ids_NK, token_N)
            rank_N = run.homes.source_T[token_N]
            return (
                yield from run.placed[index].steps(x_NH, gates_NK, slots_NK, rank_N)
            )

        return routed


def seconds(work: Callable[[], None]) -> float:
    """Processor seconds of one run."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    print(f"{trace.token_count:,} tokens, {sum(HOSTS)} ranks, one thread")
    for regime in ("placed", "replicated"):
        for traffic in MODES:
            job = job_of(trace, HOSTS, (traffic, "nearest", regime), 10**9)
            runs = Runs(job, trace)
            with one_thread(), torch.no_grad():
                both = [
                    (seconds(runs.unsharded), seconds(runs.placed))
                    for _ in range(repeats)
                ]
            alone, placed = (min(each) for each in zip(*both, strict=True))
            print(
                f"{regime:10} {traffic:13} unsharded {alone:.2f} s, placed "
                f"{placed:.2f} s, ratio {placed / alone:.2f}"
            )


if __name__ == "__main__":
    main()
