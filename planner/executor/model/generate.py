"""Greedy decoding: one pass over the prompts, then a token at a time."""

import torch
from torch import Tensor

from planner.errors import ModelError
from planner.executor.model.context import KVCache, counted
from planner.executor.model.decoder import Decoder
from planner.executor.stepping import Steps


@torch.no_grad()
def generate(
    model: Decoder, tokens_BS: Tensor, mask_BS: Tensor, count: int
) -> Steps[Tensor]:
    """Return the ``count`` likeliest next tokens of every prompt, one by one: [B, N].

    Parameters
    ----------
    tokens_BS, mask_BS
        Prompts padded on the left; True where a token is real.

    Raises
    ------
    ModelError
        If a prompt ends in padding, or prompt and ``count`` exceed the context.
    """
    if not bool(mask_BS[:, -1].all()):
        raise ModelError(
            "must end with a real token in every row", where="prompts", fix="pad left"
        )
    cache, found = KVCache(), []
    step_BS, real_BS, positions_BS = tokens_BS, mask_BS, counted(mask_BS)
    for _ in range(count):
        logits = yield from model.steps(
            step_BS, positions_BS=positions_BS, mask_BS=real_BS, context=cache
        )
        step_BS = logits[:, -1:].argmax(dim=-1)
        found.append(step_BS)
        real_BS = torch.ones_like(step_BS, dtype=torch.bool)
        positions_BS = positions_BS[:, -1:] + 1
    return torch.cat(found, dim=1)
