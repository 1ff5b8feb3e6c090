"""Small placements for the executor's tests, and outputs computed naively."""

from typing import Any

import numpy as np

from planner.layout import ParallelLayout
from planner.workload.parts import TokenPart


def layout_of(domains: list[int], ep: int | None = None) -> ParallelLayout:
    """One DP rank per GPU; one EP set unless ``ep`` is given."""
    return ParallelLayout(
        domain_G=np.asarray(domains, dtype=np.int64),
        ep=ep or len(domains),
        attention_groups=tuple((gpu,) for gpu in range(len(domains))),
    )


def part_of(
    experts_LTK: np.ndarray[Any, Any], gpus: int, rng: np.random.Generator
) -> TokenPart:
    """Tokens with random homes; ordinals count the tokens of each home."""
    tokens = experts_LTK.shape[1]
    source = rng.integers(gpus, size=tokens)
    ordinal = np.array([(source[:i] == source[i]).sum() for i in range(tokens)])
    return TokenPart(
        experts_LTK=experts_LTK.astype(np.int16),
        source_T=source,
        rank_T=source,
        ordinal_T=ordinal.astype(np.int64),
        row_T=np.arange(tokens),
    )


def random_slots(
    experts: int, ep: int, slots: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Every expert once, then copies on GPUs without one; -1 where none is left."""
    found = np.full((ep, slots), -1, dtype=np.int16)
    free = [(gpu, place) for place in range(slots) for gpu in range(ep)]
    for expert, (gpu, place) in zip(rng.permutation(experts), free, strict=False):
        found[gpu, place] = expert
    for gpu, place in free[experts:-1]:
        found[gpu, place] = rng.choice(np.setdiff1d(np.arange(experts), found[gpu]))
    return found


def random_experts(
    layers: int, tokens: int, top_k: int, experts: int, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Distinct experts per token, a few missing elements and whole rows."""
    drawn = rng.random((layers, tokens, experts)).argsort(axis=2)[:, :, :top_k]
    drawn[rng.random(drawn.shape) < 0.1] = -1
    drawn[:, rng.random(tokens) < 0.05] = -1
    return drawn.astype(np.int16)


def swiglu_by_hand(x: Any, w_in: Any, w_out: Any) -> Any:
    """SwiGLU in NumPy, float64, of one token."""
    both = x @ w_in
    gate, up = both[: both.size // 2], both[both.size // 2 :]
    return (gate / (1 + np.exp(-gate)) * up) @ w_out


def outputs_by_hand(x: Any, gates: Any, experts: Any, w_in: Any, w_out: Any) -> Any:
    """Unsharded outputs, token by token and expert by expert."""
    result = np.zeros(x.shape)
    for token in range(len(x)):
        for choice, expert in enumerate(experts[token].tolist()):
            if expert >= 0:
                done = swiglu_by_hand(x[token], w_in[expert], w_out[expert])
                result[token] += gates[token, choice] * done
    return result
