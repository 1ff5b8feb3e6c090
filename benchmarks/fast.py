"""The strategy ``fast`` against EPLB: all layers of a model, compiled code warm.

    python -m benchmarks.fast [--workload prefill_in1024] [--repeat 5]

Prints a Markdown table. A layer's figure is the greatest load of a GPU over the mean
load, copies sharing evenly (``even``). Seconds are processor time, one thread. Needs
the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.plan import PlacementPlan
from planner.strategies.base import Limits
from planner.strategies.baselines.base import repaired
from planner.strategies.baselines.eplb import pack_copies
from planner.strategies.fast.strategy import LONG, QUICK, place
from planner.workload.counts import read_counts
from planner.workload.parquet import TraceFile
from planner.workload.parts import CountsPart

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))
CASES = ((256, 2), (144, 2), (32, 9), (72, 4), (320, 1))
"""GPUs and slots of each."""
DOMAIN = 8
"""GPUs of a scale-up domain."""
SAME = 1 + 1e-12
"""Two maxima closer than this are equal: they are sums of rounded quotients."""


def main() -> None:
    """Time both and print one row per case and budget."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trace", default=SHARED / "traces/deepseek-r1_counts.parquet")
    parser.add_argument("--workload", default="prefill_in1024")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    table = read_counts(TraceFile(Path(given.trace)), given.workload)
    layers, experts = table.tokens_LE.shape
    print(f"{given.workload}: {layers} layers of {experts} experts\n")
    print(
        "| slots/GPUs | | seconds, best (median) | mean max/mean | worst | "
        "layers above EPLB / repaired | EPLB's seconds / these |\n"
        "|---|---|---|---|---|---|---|"
    )
    limits = Limits(threads=1, seed=given.seed)
    for gpus, slots in CASES:
        compare(table.tokens_LE, gpus, slots, limits, given.repeat)


def compare(
    load_LE: IntArray, gpus: int, slots: int, limits: Limits, repeat: int
) -> None:
    """Print the rows of one case."""
    experts = load_LE.shape[1]
    eplb_LGJ, eplb = timed(lambda: published(load_LE, gpus, slots), repeat)
    fixed_LGJ = repaired_slots(load_LE, eplb_LGJ)
    published_L, repaired_L = peaks(load_LE, eplb_LGJ), peaks(load_LE, fixed_LGJ)
    duplicates = int((eplb_LGJ != fixed_LGJ).sum())
    name = f"{gpus * slots}/{gpus}"
    print(
        f"| {name} | EPLB | {min(eplb):.4f} ({median(eplb):.4f}) | "
        f"{figures(published_L)} | | 1 |"
    )
    print(
        f"| {name} | EPLB, {duplicates} duplicates repaired | | "
        f"{figures(repaired_L)} | {above(repaired_L, published_L)} | |"
    )
    domain_G = np.arange(gpus) // DOMAIN
    for budget, per_expert in (("quick", QUICK), ("long", LONG)):

        def run(moves: int = per_expert * experts) -> IdArray:
            found, _ = place(load_LE, domain_G, slots, moves=moves, limits=limits)
            return found

        run()
        found_LGJ, seconds = timed(run, repeat)
        found_L = peaks(load_LE, found_LGJ)
        print(
            f"| {name} | fast, {budget} | {min(seconds):.4f} ({median(seconds):.4f}) | "
            f"{figures(found_L)} | {above(found_L, published_L)} / "
            f"{above(found_L, repaired_L)} | {min(eplb) / min(seconds):.1f} |",
            flush=True,
        )


def above(one_L: FloatArray, other_L: FloatArray) -> int:
    """Count the layers in which the first is worse."""
    return int((one_L > other_L * SAME).sum())


def timed(call: Callable[[], IdArray], repeat: int) -> tuple[IdArray, list[float]]:
    """Return the result and the seconds of each of ``repeat`` calls."""
    seconds = []
    for _ in range(repeat):
        begun = time.process_time()
        found = call()
        seconds.append(time.process_time() - begun)
    return found, seconds


def published(load_LE: IntArray, gpus: int, slots: int) -> IdArray:
    """Return the slots of the baseline ``eplb_global``."""
    packs = [
        np.stack(pack_copies(load_E, gpus * slots, gpus))
        for load_E in load_LE.astype(np.float32)
    ]
    return np.stack(packs).astype(np.int16)


def repaired_slots(load_LE: IntArray, slots_LGJ: IdArray) -> IdArray:
    """Return the slots with duplicates replaced by rule 29."""
    seen: Any = SimpleNamespace(
        planning=CountsPart(tokens_LE=load_LE, top_k=1),
        model=SimpleNamespace(experts=load_LE.shape[1]),
    )
    seen.views = (seen,)
    numbers = tuple(range(load_LE.shape[0]))
    plan = PlacementPlan(layer_numbers=numbers, slots_LGJ=slots_LGJ)
    return repaired(seen, plan).slots_LGJ


def peaks(load_LE: IntArray, slots_LGJ: IdArray) -> FloatArray:
    """Return each layer's greatest load of a GPU over the mean load."""
    found = []
    for load_E, slots_GJ in zip(load_LE, slots_LGJ, strict=True):
        copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
        load_G = (load_E / np.maximum(copies_E, 1))[slots_GJ].sum(axis=1)
        found.append(load_G.max() / load_G.mean())
    return np.asarray(found)


def figures(peak_L: FloatArray) -> str:
    """Return mean and worst as two cells of the table."""
    return f"{peak_L.mean():.5f} | {peak_L.max():.5f}"


if __name__ == "__main__":
    main()
