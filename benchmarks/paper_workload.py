"""The paper's workload once through: 128 sequences of 10,000 left-padded positions.

``python -m benchmarks.paper_workload [--traffic copies] [--strategy search]`` draws
lengths from 1,000 to 10,000 and two of 16 experts for every token in each of 16
layers (all sets equally likely; one seed); the positions before a sequence
begins are null rows, which keep their ordinal and move nothing. Then it plans model
``paper-16x16`` on ``paper-h100-32x8-hdr`` (256 GPUs) and replays the plan by the
counter and by moving tensors between 256 virtual ranks, each in a process of its own.
Both are held against one prediction, every GPU pair and link numerator of every layer
and leg, so they agree with each other; a difference ends the program.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from planner.workload.synth import uniform_sets
from planner.workload.trace_writer import write_trace

TOPOLOGY, MODEL = "paper-h100-32x8-hdr", "paper-16x16"
SEQUENCES, POSITIONS, LAYERS, EXPERTS, TOP_K = 128, 10_000, 16, 16, 2
SHORTEST = 1_000
LIMIT_GB = 8
PLANNER = (sys.executable, "-c", "from planner.cli.main import main; main()")


def draw(path: Path, seed: int, sequences: int, positions: int) -> int:
    """Write the trace; return its tokens that are no padding."""
    rng = np.random.default_rng(seed)
    shortest = min(SHORTEST, positions)
    length_Q = rng.integers(shortest, positions, size=sequences, endpoint=True)
    pos_T = np.tile(np.arange(positions), sequences)
    padding_T = pos_T < positions - np.repeat(length_Q, positions)
    experts = {}
    for layer in range(LAYERS):
        sets_TK = rng.permuted(
            uniform_sets(rng, pos_T.size, EXPERTS, TOP_K).astype(np.int16), axis=1
        )
        sets_TK[padding_T] = -1
        experts[layer] = sets_TK
    write_trace(
        path,
        metadata={
            "model": "synthetic: uniform",
            "num_experts": EXPERTS,
            "top_k": TOP_K,
            "order": "router",
        },
        seq_id=np.repeat(np.arange(sequences), positions),
        pos=pos_T,
        tag="padded",
        phase="prefill",
        experts=experts,
    )
    return int(length_Q.sum())


def run(arguments: Sequence[str]) -> tuple[str, float, float, float]:
    """Run the command line; return its output, seconds on the wall, of the
    processor, and the most gigabytes it held.
    """
    begun = time.perf_counter()
    with subprocess.Popen([*PLANNER, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        shown = process.stdout.read().decode()
        _, status, spent = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"planner {arguments[0]} ended with {process.returncode}")
    return shown, wall, spent.ru_utime + spent.ru_stime, spent.ru_maxrss / 1e6


def measure(given: argparse.Namespace, folder: Path) -> bool:
    """Draw, plan, replay twice; return whether the replays kept the memory limit."""
    trace, plan = folder / "padded.parquet", folder / "plan.json"
    real = draw(trace, given.seed, given.sequences, given.positions)
    print(f"{given.sequences * given.positions:,} positions, {real:,} of them tokens")
    drawn = resource.getrusage(resource.RUSAGE_SELF)
    seconds, held = drawn.ru_utime + drawn.ru_stime, drawn.ru_maxrss / 1e6
    print("| step | transfers | wall s | moving s | processor s | peak GB |")
    print("|---|---|---|---|---|---|")
    print(f"| draw | | | | {seconds:.1f} | {held:.2f} |")
    options = ["--model", MODEL, "--trace", str(trace), "--holdout", "0"]
    options += ["--traffic", given.traffic, "--strategy", given.strategy]
    _, wall, used, held = run(["solve", TOPOLOGY, *options, "-o", str(plan)])
    print(f"| solve, {given.strategy} | | {wall:.1f} | | {used:.1f} | {held:.2f} |")
    moved, peak = set(), 0.0
    for executor in given.executors.split(","):
        words = ["--executor", executor, "--gating", "forced", "--format", "json"]
        shown, wall, used, held = run(["replay", str(plan), *words])
        (part,) = json.loads(shown)["parts"]
        moved.add(part["transfers"])
        peak = max(peak, held)
        print(
            f"| replay, {executor} | {part['transfers']:,} | {wall:.1f} | "
            f"{part['seconds']:.1f} | {used:.1f} | {held:.2f} |"
        )
        print(
            f"{executor}: {part['pairs']:,} GPU pairs and {part['links']:,} link loads "
            f"as predicted; outputs: {part['max_relative_error']}",
            file=sys.stderr,
        )
    return len(moved) == 1 and peak <= LIMIT_GB


def main() -> None:
    """Read the arguments and measure in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--traffic", default="dedup_domain")
    parser.add_argument("--strategy", default="eplb_global")
    parser.add_argument("--executors", default="counter,local")
    parser.add_argument("--sequences", type=int, default=SEQUENCES)
    parser.add_argument("--positions", type=int, default=POSITIONS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        if not measure(given, Path(folder)):
            raise SystemExit("the counts differ, or a replay held more than 8 GB")


if __name__ == "__main__":
    main()
