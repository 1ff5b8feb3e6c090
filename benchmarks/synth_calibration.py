"""How near the synthetic kinds come to what real routers show.

    python -m benchmarks.synth_calibration [KIND or FILE]... [--tokens 20000] [--seed 1]

Prints one column of figures per synthetic kind (default: all of them) or Parquet
trace. Sequences are split in halves per tag: what a figure learns from one half is
scored on the other.

Axes: L layers, T tokens, K top-k, E experts.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.workload.synth import (
    PRESETS,
    CalibratedTrace,
    UniformTrace,
    write_calibrated,
    write_uniform,
)
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace

# Layers of a deep model that are looked at, with their successors: evenly spread.
_LAYERS_LOOKED_AT = 12


def drawn(kind: str, folder: Path, tokens: int, seed: int) -> RoutingTrace:
    """Draw a synthetic trace of a kind and read it."""
    path = folder / f"{kind}.parquet"
    if kind in PRESETS:
        write_calibrated(path, CalibratedTrace(preset=kind, tokens=tokens, seed=seed))
    else:
        shape = {"experts": 64, "top_k": 6, "layer_numbers": tuple(range(6))}
        write_uniform(path, UniformTrace(tokens=tokens, seed=seed, **shape))  # type: ignore[arg-type]
    return read(path)


def read(path: Path) -> RoutingTrace:
    """Read a token trace."""
    trace = load_trace(path)
    if not isinstance(trace, RoutingTrace):
        raise SystemExit(f"{path}: a counts table has no tokens to look at")
    return trace


def figures(trace: RoutingTrace) -> dict[str, float]:
    """Return every figure, as a mean or median over layers."""
    last = max(1, len(trace.layer_numbers) - 1)
    layers = np.unique(np.linspace(0, last - 1, _LAYERS_LOOKED_AT).astype(int))
    half_T = second_half(trace)
    found: dict[str, list[float]] = {}
    for layer in layers.tolist():
        now_TE = chosen(trace, layer)
        after_TE = chosen(trace, min(layer + 1, last))
        for name, value in (
            loads(trace, now_TE)
            | {
                "load correlation of halves": correlation(
                    now_TE[half_T].sum(axis=0), now_TE[~half_T].sum(axis=0)
                ),
                "pair lift, 99th percentile": pair_lift(now_TE),
                "next layer's experts recalled": recall(now_TE, after_TE, half_T),
                "the same from popularity": recall(None, after_TE, half_T),
            }
            | overlaps(trace, now_TE)
        ).items():
            found.setdefault(name, []).append(value)
    return {
        name: float(np.median(values) if "max/mean" in name else np.mean(values))
        for name, values in found.items()
    }


def chosen(trace: RoutingTrace, layer: int) -> BoolArray:
    """Return which experts each token chose, [T, E]."""
    chosen_TE = np.zeros((trace.token_count, trace.num_experts), dtype=np.bool_)
    experts_TK = trace.experts_LTK[layer]
    rows, columns = np.nonzero(experts_TK >= 0)
    chosen_TE[rows, experts_TK[rows, columns]] = True
    return chosen_TE


def second_half(trace: RoutingTrace) -> BoolArray:
    """Return the tokens of every other sequence of each tag."""
    first_row = np.unique(trace.sequence_T, return_index=True)[1]
    turn = np.zeros(trace.sequence_count, dtype=np.bool_)
    for tag in np.unique(trace.tag_T):
        mine = np.flatnonzero(trace.tag_T[first_row] == tag)
        turn[mine[1::2]] = True
    return turn[trace.sequence_T]


def loads(trace: RoutingTrace, chosen_TE: BoolArray) -> dict[str, float]:
    """Return skew of all tokens and of single tags, and how alike the tags are."""
    load_E = chosen_TE.sum(axis=0)
    tags = np.unique(trace.tag_T)
    share = [chosen_TE[trace.tag_T == tag].sum(axis=0) for tag in tags]
    pairs = [
        correlation(a, b) for i, a in enumerate(share) for b in share[i + 1 :]
    ] or [1.0]
    return {
        "load max/mean": float(load_E.max() / load_E.mean()),
        "load deviation/mean": float(load_E.std() / load_E.mean()),
        "load max/mean of one tag": float(np.mean([a.max() / a.mean() for a in share])),
        "load correlation of tags": float(np.median(pairs)),
    }


def correlation(first_E: IntArray, second_E: IntArray) -> float:
    """Return Pearson's correlation, 0 where one side is constant."""
    if not first_E.std() * second_E.std():
        return 0.0
    return float(np.corrcoef(first_E, second_E)[0, 1])


def pair_lift(chosen_TE: BoolArray) -> float:
    """Return the 99th percentile over pairs of P(e, f) / (P(e) P(f))."""
    pairs_EE = together(chosen_TE, chosen_TE)
    alone_E = np.diagonal(pairs_EE)
    expected_EE = np.outer(alone_E, alone_E) / chosen_TE.shape[0]
    e, f = np.triu_indices(alone_E.size, k=1)
    # Pairs expected in less than one token would only show chance.
    known = expected_EE[e, f] >= 1
    return float(np.quantile(pairs_EE[e, f][known] / expected_EE[e, f][known], 0.99))


def recall(now_TE: BoolArray | None, after_TE: BoolArray, half_T: BoolArray) -> float:
    """Return the share of the next layer's experts that this layer's foretell.

    Each candidate is rated by Σ P(next | expert) over the token's experts, learned
    on one half; without experts of this layer, by its popularity.
    """
    known = ~half_T
    if now_TE is None:
        rate_TE = np.tile(after_TE[known].sum(axis=0), (int(half_T.sum()), 1))
    else:
        joint_EE = together(now_TE[known], after_TE[known])
        given_EE = joint_EE / np.maximum(now_TE[known].sum(axis=0), 1)[:, None]
        rate_TE = now_TE[half_T].astype(np.float32) @ given_EE.astype(np.float32)
    width = int(after_TE.sum(axis=1).max())
    best_TK = np.argpartition(-rate_TE, width - 1, axis=1)[:, :width]
    return float(np.take_along_axis(after_TE[half_T], best_TK, axis=1).mean())


def together(first_TE: BoolArray, second_TE: BoolArray) -> FloatArray:
    """Return in how many tokens each expert of one meets each of the other."""
    met: FloatArray = first_TE.T.astype(np.float32) @ second_TE.astype(np.float32)
    return met.astype(np.float64)


def overlaps(trace: RoutingTrace, chosen_TE: BoolArray) -> dict[str, float]:
    """Return the share of experts kept from the token before, and by chance."""
    width = int(chosen_TE.sum(axis=1).max())
    follows_T = trace.sequence_T[1:] == trace.sequence_T[:-1]
    kept_T = (chosen_TE[1:] & chosen_TE[:-1]).sum(axis=1)[follows_T]
    popular_E = chosen_TE.mean(axis=0)
    return {
        "experts kept from token to token": float(kept_T.mean() / width),
        "the same of any two tokens": float((popular_E**2).sum() / width),
    }


def main() -> None:
    """Print one row per figure, one column per trace."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["uniform", *PRESETS])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        columns = {
            Path(name).stem: figures(
                drawn(name, Path(folder), args.tokens, args.seed)
                if name in ("uniform", *PRESETS)
                else read(Path(name))
            )
            for name in args.what
        }
    print(f"{'':<36}" + "".join(f"{name[:18]:>20}" for name in columns))
    for row in next(iter(columns.values())):
        print(
            f"{row:<36}" + "".join(f"{found[row]:>20.3f}" for found in columns.values())
        )


if __name__ == "__main__":
    main()
