"""From a router's logits to experts and gates; gradients flow through the gates."""

import torch
from torch import Tensor

from planner.executor.gating.gate import Gate


def choose(
    gate: Gate, logits_TE: Tensor, bias_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose experts for every token.

    Scores are computed in float32 at least. Of equal selection scores the expert
    (and of equal groups the group) with the lower id goes first.

    Parameters
    ----------
    bias_E
        Added to the scores (under ``softmax_of_chosen`` to the logits) for the
        choice alone.

    Returns
    -------
    ids_TK, gates_TK
        Expert ids (int64) by descending selection score, and their gates.
    """
    scores_TE = _scores(gate, logits_TE)
    selection_TE = scores_TE.detach()
    if bias_E is not None:
        selection_TE = selection_TE + bias_E
    if gate.kept_groups < gate.groups:
        selection_TE = _within_best_groups(gate, selection_TE)
    ids_TK = _greatest(selection_TE, gate.top_k)
    chosen_TK = scores_TE.gather(-1, ids_TK)
    return ids_TK, _gates(gate, chosen_TK)


def weigh(gate: Gate, logits_TE: Tensor, ids_TK: Tensor) -> Tensor:
    """Return the gates of experts that were chosen already, none of them null."""
    return _gates(gate, _scores(gate, logits_TE).gather(-1, ids_TK))


def _scores(gate: Gate, logits_TE: Tensor) -> Tensor:
    if logits_TE.dtype in (torch.float16, torch.bfloat16):
        logits_TE = logits_TE.float()
    if gate.scores == "sigmoid":
        return torch.sigmoid(logits_TE)
    if gate.scores == "softmax":
        return torch.softmax(logits_TE, dim=-1)
    return logits_TE


def _within_best_groups(gate: Gate, selection_TE: Tensor) -> Tensor:
    """Put the experts of all but a token's best groups out of reach."""
    members_TNM = selection_TE.unflatten(-1, (gate.groups, gate.group_size))
    counted = 1 if gate.group_score == "best" else 2
    group_TN = members_TNM.topk(counted, dim=-1).values.sum(dim=-1)
    left_out_TN = torch.ones_like(group_TN, dtype=torch.bool)
    left_out_TN.scatter_(-1, _greatest(group_TN, gate.kept_groups), False)
    return members_TNM.masked_fill(left_out_TN[..., None], -torch.inf).flatten(-2)


def _greatest(values_TE: Tensor, count: int) -> Tensor:
    """Return the ids of the greatest values, equal ones by ascending id.

    ``topk`` leaves the order of equal values open and a stable sort takes five times
    as long: only tokens with equal values among their greatest are sorted.
    """
    seen = min(count + 1, values_TE.shape[-1])
    best = torch.topk(values_TE, seen, dim=-1)
    ids_TK = best.indices[..., :count]
    equal_T = (best.values[..., 1:] == best.values[..., :-1]).any(dim=-1)
    if bool(equal_T.any()):
        order_TE = torch.sort(
            values_TE[equal_T], dim=-1, descending=True, stable=True
        ).indices
        ids_TK = ids_TK.clone()
        ids_TK[equal_T] = order_TE[..., :count]
    return ids_TK


def _gates(gate: Gate, chosen_TK: Tensor) -> Tensor:
    if gate.scores == "softmax_of_chosen":
        gates_TK = torch.softmax(chosen_TK, dim=-1)
    elif gate.normalise:
        # Scores that all round to 0 give gates of 0 and not 0 / 0.
        least = torch.finfo(chosen_TK.dtype).tiny
        gates_TK = chosen_TK / chosen_TK.sum(dim=-1, keepdim=True).clamp(min=least)
    else:
        gates_TK = chosen_TK
    return gates_TK * gate.scale if gate.scale != 1 else gates_TK
