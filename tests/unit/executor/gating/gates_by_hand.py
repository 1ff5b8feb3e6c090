"""Routing of one token at a time in plain Python floats, written apart."""

import math
from typing import Any


def chosen_by_hand(
    logits: list[float],
    bias: list[float] | None,
    *,
    top_k: int,
    scores: str,
    groups: int,
    kept_groups: int,
    group_score: str,
    normalise: bool,
    scale: float,
    **_: Any,
) -> tuple[list[int], list[float]]:
    """Experts and gates of one token."""
    if scores == "sigmoid":
        own = [1 / (1 + math.exp(-x)) for x in logits]
    elif scores == "softmax":
        top = max(logits)
        total = sum(math.exp(x - top) for x in logits)
        own = [math.exp(x - top) / total for x in logits]
    else:
        own = list(logits)
    selection = [s + (bias[e] if bias else 0.0) for e, s in enumerate(own)]
    size = len(logits) // groups

    def worth(group: int) -> float:
        inside = sorted(selection[group * size : (group + 1) * size], reverse=True)
        return inside[0] if group_score == "best" else inside[0] + inside[1]

    ranked = sorted(range(groups), key=lambda group: (-worth(group), group))
    kept = set(ranked[:kept_groups])
    allowed = [e for e in range(len(logits)) if e // size in kept]
    ids = sorted(allowed, key=lambda e: (-selection[e], e))[:top_k]
    gates = [own[e] for e in ids]
    if scores == "softmax_of_chosen":
        gates = [math.exp(g - max(gates)) for g in gates]
        gates = [g / sum(gates) for g in gates]
    elif normalise:
        gates = [g / sum(gates) for g in gates]
    return ids, [g * scale for g in gates]
