"""Drawn decoders and how they are divided over four ranks."""

from typing import Any

import numpy as np

from planner.executor.gating.gate import Gate
from planner.executor.model.config import AttentionDims, GroupedDims, LatentDims
from planner.executor.parallel.spec import ParallelSpec

DEGREES = [
    (tp, etp, pp, 4 // (tp * pp))
    for tp in (1, 2, 4)
    for pp in (1, 2, 4)
    for etp in (1, 2, 4)
    if 4 % (tp * pp) == 0 and tp % etp == 0
]


def drawn(seed: int) -> tuple[AttentionDims, ParallelSpec, dict[str, Any]]:
    """Attention, degrees, and what else of the decoder is not as always."""
    rng = np.random.default_rng(seed)

    def one(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    tp, etp, pp, dp = DEGREES[rng.integers(len(DEGREES))]
    spec = ParallelSpec(tp=tp, etp=etp, pp=pp, dp=dp)
    traffic = one("copies", "dedup_gpu", "dedup_domain")
    sets = int(one(1, spec.ep // 2)) if spec.ep == 4 else 1
    experts = int(one(4, 6, 9))
    layers = max(pp, int(one(1, 2, 3)))
    changes = {
        "traffic": traffic,
        "sets": sets,
        "shape": one((1, 2), (1, 7), (3, 4)),
        "layers": layers,
        "dense_layers": int(rng.integers(layers)),
        "gate": Gate(
            experts=experts,
            top_k=int(one(1, 2, experts)),
            scores=one("softmax", "sigmoid", "softmax_of_chosen"),
        ),
        "shared_ffn": int(one(0, 8)),
        "activation": one("swiglu", "gelu"),
        "tied": bool(one(True, False)),
        "unrouted_ids": one((), (0, 7), tuple(range(40))),
    }
    return _attention(rng, tp), spec, changes


def _attention(rng: np.random.Generator, tp: int) -> AttentionDims:
    heads = tp * int(rng.integers(1, 3))
    if rng.integers(2):
        return LatentDims(
            heads=heads,
            q_lora_rank=int(rng.integers(2)) * 5,
            kv_lora_rank=6,
            rope_head_dim=2,
            head_dim=3,
            v_head_dim=4,
        )
    fits = [
        kv
        for kv in range(1, heads + 1)
        if heads % kv == 0 and (kv % tp == 0 or tp % kv == 0)
    ]
    return GroupedDims(heads=heads, kv_heads=int(rng.choice(fits)), head_dim=4)
