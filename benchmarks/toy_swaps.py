"""Why no plan of `toy-moe-64e-grouped` on one box is better than contiguous.

    python -m benchmarks.toy_swaps [--holdout 0.5]

Prints for every layer of the planning and the held-out part, and for the least and most
of all layers: the share of tokens whose experts are those of exactly three blocks of
eight (what a GPU holds contiguously); how many GPUs more all tokens together touch
after the best swap of two experts from there; and max/mean of (token, expert) pairs per
GPU. Needs the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
from collections.abc import Iterable

import numpy as np

from benchmarks.v2lite import SHARED
from planner.arrays import IdArray, IntArray
from planner.options import SolveOptions
from planner.pipeline import load
from planner.workload.parts import TokenPart

BLOCKS = 3
TRACE = SHARED / "traces/toy-moe-64e-grouped.parquet"


def main() -> None:
    """Print a line per layer and the range of every figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdout", default="0.5")
    given = parser.parse_args()
    problem = load(
        "dgx-h100-1",
        trace=TRACE,
        options=SolveOptions(traffic="dedup_gpu", redundant="0", holdout=given.holdout),
    ).instance
    experts, gpus = problem.model.experts, problem.layout.gpu_count
    gpu_E = np.arange(experts) * gpus // experts
    print("part, layer: three blocks, best swap, max/mean")
    for name, part in (("planning", problem.planning), ("held-out", problem.holdout)):
        assert isinstance(part, TokenPart)
        rows = [_figures(ids_TK, gpu_E) for ids_TK in part.experts_LTK]
        for number, row in zip(problem.model.moe_layers, rows, strict=True):
            print(f"{name}, {number}: {_shown(row)}")
        count = len(swaps(part.experts_LTK[0], gpu_E))
        print(f"{name}, of {count} swaps and {part.token_count} tokens:")
        print(f"{name}, least: {_shown(map(min, zip(*rows, strict=True)))}")
        print(f"{name}, most: {_shown(map(max, zip(*rows, strict=True)))}")


def _figures(ids_TK: IdArray, gpu_E: IntArray) -> tuple[float, ...]:
    """Return what is printed of a layer."""
    held_TK = np.sort(gpu_E[ids_TK], axis=1)
    blocks_T = 1 + (np.diff(held_TK, axis=1) > 0).sum(axis=1)
    pairs_G = np.bincount(held_TK.ravel())
    return (
        float((blocks_T == BLOCKS).mean()),
        float(swaps(ids_TK, gpu_E).min()),
        float(pairs_G.max() / pairs_G.mean()),
    )


def swaps(ids_TK: IdArray, gpu_E: IntArray) -> IntArray:
    """Return by how many GPUs tokens touch more after each swap of two experts.

    A token that has expert a but not b loses a's GPU if a is alone there, and gains
    b's if it touched none; likewise for b.
    """
    takes_TE = np.zeros((len(ids_TK), gpu_E.size))
    takes_TE[np.arange(len(ids_TK))[:, None], ids_TK] = 1
    there_TG = np.stack(
        [takes_TE[:, gpu_E == gpu].sum(axis=1) for gpu in range(gpu_E.max() + 1)],
        axis=1,
    )
    alone_TE = takes_TE * (there_TG[:, gpu_E] == 1)
    gained_EE = (takes_TE.T @ (there_TG == 0))[:, gpu_E]
    lost_EE = alone_TE.sum(axis=0)[:, None] - alone_TE.T @ takes_TE
    one_way_EE = gained_EE - lost_EE
    first, second = np.nonzero(gpu_E[:, None] < gpu_E[None, :])
    both_EE: IntArray = (one_way_EE + one_way_EE.T).astype(np.int64)
    return both_EE[first, second]


def _shown(row: Iterable[float]) -> str:
    share, swap, imbalance = row
    return f"{100 * share:.1f} %, {swap:+.0f}, {imbalance:.2f}"


if __name__ == "__main__":
    main()
