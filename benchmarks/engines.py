"""Threads against forked processes on the layers of one search.

    python -m benchmarks.engines [--rounds 3] [--layers 6] [--seconds 4]

Does the same counted work (bound and search of DeepSeek-V2-Lite on ``h100-4x8-rail``)
with one worker, on two threads and in two processes in turn, and prints seconds on
the wall, processor seconds of all processes, and the load average. Needs the shared
data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import time

from benchmarks.v2lite import ROWS, _instance, _some_layers
from planner import clock
from planner.engine import ENGINES
from planner.strategies.base import STRATEGIES, Limits


def main() -> None:
    """Print a line per round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=4.0, help="counted")
    given = parser.parse_args()
    asked = argparse.Namespace(
        selection="nearest", plan_for="seen", cap=None, layers=given.layers
    )
    problem = _some_layers(_instance(ROWS["4x8"], "none", asked), given.layers)
    runs = [("threads", 1), *((name, 2) for name in reversed(ENGINES.names()))]
    for number in range(given.rounds + 1):
        figures = []
        for name, workers in runs:
            limits = Limits(seconds=given.seconds, threads=workers, engine=name)
            begun, spent = time.perf_counter(), sum(os.times()[:4])
            with clock.counting_work():
                STRATEGIES.get("search")(problem, limits)
            wall, cpu = time.perf_counter() - begun, sum(os.times()[:4]) - spent
            figures.append(f"{workers} {name} {wall:.2f} s ({cpu:.2f} s of processors)")
        if number:
            # The first round compiles and reads files.
            print(f"{'; '.join(figures)}; load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
