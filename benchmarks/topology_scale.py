"""How long a cluster takes to load, validate and route, and how much memory.

    python benchmarks/topology_scale.py [NAME or FILE]

The default is the bundled cluster of 4,096 GPUs. One line per step; the last two
are the sum of load and routes, and the peak resident memory of the process.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from planner.topology.paths import build_routes
from planner.topology.schema import load_topology

T = TypeVar("T")


def timed(label: str, work: Callable[[], T]) -> tuple[T, float]:
    """Run ``work`` and print its seconds."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{label:<34}{seconds:8.2f} s")
    return result, seconds


def main(name: str) -> None:
    """Print the figures of one cluster."""
    topology, load_s = timed("load and validate", lambda: load_topology(name))
    routes, route_s = timed("routes", lambda: build_routes(topology))
    count = topology.gpu_count
    ones = np.ones((count, count), dtype=np.int64)
    timed("loads, all pairs (first call)", lambda: routes.loads(ones))
    timed("loads, all pairs (compiled)", lambda: routes.loads(ones))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{topology.name}: {count} GPUs, {len(topology.links)} links, Q = {routes.q}")
    print(f"{'load + validate + routes':<34}{load_s + route_s:8.2f} s")
    print(f"{'peak memory':<34}{kilobytes / 1000:8.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "superpod-b200-16su")
