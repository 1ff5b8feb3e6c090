"""Balance with three and four slots per GPU where large copies matter: gaps left.

    python -m benchmarks.several_slots [--layers 30] [--seconds 30]

Layers of skewed loads (lognormal, sigma 1.2 and 1.5) with few spare slots: 64 experts
on 24 GPUs of three slots, 40 experts on 16 of four, in turn. Prints a line per layer:
max/mean, what bounds it, the gap (value - bound)/value and processor seconds; then mean
and worst gap.
"""

import argparse
import time

import numpy as np

from planner.strategies.balance.layer import Effort
from planner.strategies.balance.problem import BalanceLayer, counted_layer
from planner.strategies.balance.searches import compile_searches, solve_layer

SHAPES = ((64, 24, 3), (40, 16, 4))
SIGMAS = (1.2, 1.5)


def main() -> None:
    """Solve the layers one by one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    compile_searches()
    gaps = []
    for seed in range(given.layers):
        layer, begun = drawn(seed), time.process_time()
        found = solve_layer(layer, given.seconds, Effort())
        used = time.process_time() - begun
        gaps.append(100 * found.gap)
        print(
            f"{seed:3} {layer.experts} experts, {layer.gpus} x {layer.slots_per_gpu}: "
            f"{found.value * layer.gpus / layer.total:.5f} {found.bound.method:8} "
            f"gap {gaps[-1]:.3f} % {used:5.1f} s",
            flush=True,
        )
    print(f"mean {np.mean(gaps):.3f} %, worst {max(gaps):.3f} %")


def drawn(seed: int) -> BalanceLayer:
    """Return one layer."""
    experts, gpus, slots = SHAPES[seed % 2]
    sigma = SIGMAS[seed // 2 % 2]
    load_E = 1000 * np.random.default_rng(seed).lognormal(0.0, sigma, experts)
    return counted_layer(np.maximum(1, load_E.astype(np.int64)), gpus, slots)


if __name__ == "__main__":
    main()
