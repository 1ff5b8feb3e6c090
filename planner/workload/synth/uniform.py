"""Synthetic traces; ``uniform`` is the null in which placement can gain nothing."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.arrays import IntArray
from planner.errors import UsageError
from planner.workload.tokens import MAX_EXPERTS
from planner.workload.trace_writer import write_trace

ORDERS = ("sorted", "router")
_MOST_SEQUENCE_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformTrace:
    """Every token chooses K of E experts, each set equally likely, in every layer.

    ``sequences`` is 0 for sequences of 256 tokens; ``layer_numbers`` are the numbers
    in the model of the MoE layers. ``order`` is ``sorted``, or ``router``: every order
    of a set is then equally likely, the best expert first.
    """

    tokens: int
    experts: int
    top_k: int
    layer_numbers: tuple[int, ...]
    sequences: int = 0
    seed: int = 0
    phase: str = "prefill"
    order: str = "sorted"

    def __post_init__(self) -> None:
        rules = (
            (1 <= self.tokens < 2**32, "--tokens", self.tokens, "from 1 to 2^32 - 1"),
            (
                1 <= self.experts <= MAX_EXPERTS,
                "--experts",
                self.experts,
                f"from 1 to {MAX_EXPERTS}",
            ),
            (
                1 <= self.top_k <= self.experts,
                "--top-k",
                self.top_k,
                f"from 1 to --experts = {self.experts}",
            ),
            (bool(self.layer_numbers), "--layers", 0, "at least 1"),
            (
                0 <= self.sequences <= self.tokens,
                "--sequences",
                self.sequences,
                f"from 0 to --tokens = {self.tokens}",
            ),
            (self.seed >= 0, "--seed", self.seed, ">= 0"),
            (self.order in ORDERS, "--order", self.order, "sorted or router"),
        )
        for holds, flag, value, rule in rules:
            if not holds:
                raise UsageError(f"{flag} {value} must be {rule}")


def write_uniform(path: Path, trace: UniformTrace) -> None:
    """Draw a uniform trace and write it, labelled ``synthetic: uniform``.

    The same fields give the same choices on every machine (NumPy's PCG64).
    """
    rng = np.random.default_rng(trace.seed)
    sequences = trace.sequences or -(-trace.tokens // _MOST_SEQUENCE_TOKENS)
    # Near-equal blocks: sequence i starts at row ⌊i·T/n⌋.
    starts = np.arange(sequences, dtype=np.int64) * trace.tokens // sequences
    lengths = np.diff(np.append(starts, trace.tokens))
    write_trace(
        path,
        metadata={
            "model": "synthetic: uniform",
            "synthetic": "uniform",
            "num_experts": trace.experts,
            "top_k": trace.top_k,
            "order": trace.order,
            "seed": trace.seed,
            "source": "synthetic: uniform, no sequence, tag or layer prefers an expert",
        },
        seq_id=np.repeat(np.arange(sequences), lengths),
        pos=np.arange(trace.tokens) - np.repeat(starts, lengths),
        tag="uniform",
        phase=trace.phase,
        experts={number: _choices(rng, trace) for number in trace.layer_numbers},
    )


def _choices(rng: np.random.Generator, trace: UniformTrace) -> IntArray:
    """Return the experts of every token in one layer, in the order wanted."""
    sets_TK = uniform_sets(rng, trace.tokens, trace.experts, trace.top_k)
    return sets_TK if trace.order == "sorted" else rng.permuted(sets_TK, axis=1)


def uniform_sets(
    rng: np.random.Generator, tokens: int, experts: int, top_k: int
) -> IntArray:
    """Return ``tokens`` sorted sets of ``top_k`` distinct ids, all equally likely.

    References
    ----------
    Floyd's sampling: Bentley, "Programming pearls: a sample of brilliance", CACM
    30(9), 1987, doi:10.1145/30401.315746.
    """
    sets_TK = np.empty((tokens, top_k), dtype=np.int64)
    for k, last in enumerate(range(experts - top_k, experts)):
        drawn = rng.integers(0, last, size=tokens, endpoint=True)
        taken = (sets_TK[:, :k] == drawn[:, None]).any(axis=1)
        sets_TK[:, k] = np.where(taken, last, drawn)
    sets_TK.sort(axis=1)
    return sets_TK
