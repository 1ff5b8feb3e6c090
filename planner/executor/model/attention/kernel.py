"""Attention proper, the same for every kind: scores, softmax, weighted sum."""

import torch.nn.functional as F
from torch import Tensor


def attend(
    q_BSND: Tensor,
    k_BCMD: Tensor,
    v_BCMV: Tensor,
    mask_BSC: Tensor | None,
    *,
    scale: float,
) -> Tensor:
    """Return softmax(q·k * scale) v for every head: ``[B, S, N, V]``.

    Parameters
    ----------
    q_BSND, k_BCMD, v_BCMV
        N query heads share M heads of keys and values: N/M neighbours each.
    mask_BSC
        True where a token may look; None: causal, S = C.
    """
    q, k, v = (x.transpose(1, 2) for x in (q_BSND, k_BCMD, v_BCMV))
    group = q.shape[1] // k.shape[1]
    # One token's heads of a group are rows of one product: no copies of what is kept.
    as_rows = group > 1 and q.shape[2] == 1 and mask_BSC is not None
    if as_rows:
        q = q.unflatten(1, (-1, group)).squeeze(3)
    elif group > 1:
        k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    y = F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=None if mask_BSC is None else mask_BSC[:, None],
        is_causal=mask_BSC is None,
        scale=scale,
    )
    return y.flatten(1, 2)[:, None] if as_rows else y.transpose(1, 2)
