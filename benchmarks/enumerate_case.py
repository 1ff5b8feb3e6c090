"""Find the optimum of a small benchmark case by trying every placement.

    python -m benchmarks.enumerate_case benchmarks/cases/NAME.toml

For cases without copies (``redundant = "0"``). Prints the optimum as
``known_optimum`` wants it, how many placements were tried and how many are optimal.
Layers are separate, so each is tried alone.
"""

import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np

from planner.bench.case import read_case
from planner.bench.suite import trace_source
from planner.options import SolveOptions
from planner.pipeline import load
from planner.strategies.judging import judged_layer

MOST = 200_000


def placements(
    experts: tuple[int, ...], gpus: int, slots: int
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Give ``slots`` experts to each GPU in every way."""
    if gpus == 0:
        yield ()
        return
    for mine in combinations(experts, slots):
        rest = tuple(expert for expert in experts if expert not in mine)
        for others in placements(rest, gpus - 1, slots):
            yield (mine, *others)


def main() -> None:
    """Print the optimum of one case."""
    case = read_case(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as folder:
        problem = load(
            case.topology,
            model=case.model,
            trace=trace_source(case, Path(folder)),
            options=SolveOptions(**case.options),
        )
    instance = problem.instance
    experts, gpus, slots = (
        instance.model.experts,
        instance.layout.ep,
        instance.slots_per_gpu,
    )
    if experts != gpus * slots:
        sys.exit("only for cases without copies: set redundant to 0")
    count = factorial(experts) // factorial(slots) ** gpus
    if count > MOST:
        sys.exit(f"{count:,} placements are too many")
    total = Fraction(0)
    for layer in range(instance.layer_count):
        values = [
            judged_layer(instance, layer, np.array(plan, dtype=np.int16), {})
            for plan in placements(tuple(range(experts)), gpus, slots)
        ]
        best = min(value for value, excess in values if excess == 0)
        optimal = sum(value == best for value, excess in values if excess == 0)
        print(f"layer {layer}: {best} in {optimal} of {count:,} placements")
        total += best
    print(f'known_optimum = "{total}"')


if __name__ == "__main__":
    main()
