"""Multi-head latent attention (MLA) of DeepSeek-V2: arXiv:2405.04434, section 2.1."""

import torch
from torch import Tensor, nn

from planner.executor.model.attention.kernel import attend
from planner.executor.model.config import LatentDims
from planner.executor.model.context import Context
from planner.executor.model.rotary import rotate
from planner.executor.stepping import Steps


class LatentAttention(nn.Module):
    """Keys and values of all heads come from one latent per token.

    A query has an unrotated and a rotated part; the rotated part of the keys is one
    for all heads, so that the rest of a key stays a linear map of the latent. The
    context keeps the normed latent and the rotated part.

    Attributes
    ----------
    absorbed
        Which of two equal forms computes. False, the naive one: keys and values of
        every head are made of the latents. True: queries are taken into the space
        of latents, and what is attended is brought up after, so that a step costs
        no product per kept token and head. None: absorbed where the context holds
        more than the tokens at hand.
    w_q_down, norm_q, w_q
        Down-projection ``[H, q_lora_rank]``, its norm, and queries by head
        ``[., N (head_dim + rope_head_dim)]``; without a rank, from the input.
    w_kv_down, norm_kv
        Latent and rotated key part ``[H, kv_lora_rank + rope_head_dim]``, and the
        norm of the latent.
    w_k, w_v
        Unrotated keys and values of a head from the latent ``[N, kv_lora_rank, .]``.
    w_o
        Output projection ``[N v_head_dim, H]``.
    """

    def __init__(self, hidden: int, dims: LatentDims, layer: int) -> None:
        super().__init__()
        self.dims, self.layer = dims, layer
        self.absorbed: bool | None = None
        rank, heads, rope = dims.kv_lora_rank, dims.heads, dims.rope_head_dim
        source = dims.q_lora_rank or hidden
        self.w_q_down = self.norm_q = None
        if dims.q_lora_rank:
            self.w_q_down = _weights(hidden, dims.q_lora_rank)
            self.norm_q = nn.RMSNorm(dims.q_lora_rank, eps=1e-5)
        self.w_q = _weights(source, heads * (dims.head_dim + rope))
        self.w_kv_down = _weights(hidden, rank + rope)
        self.norm_kv = nn.RMSNorm(rank, eps=1e-5)
        self.w_k = nn.Parameter(torch.randn(heads, rank, dims.head_dim) * rank**-0.5)
        self.w_v = nn.Parameter(torch.randn(heads, rank, dims.v_head_dim) * rank**-0.5)
        self.w_o = _weights(heads * dims.v_head_dim, hidden, gain=0.3)

    def steps(
        self,
        x_BSH: Tensor,
        *,
        positions_BS: Tensor,
        mask_BSC: Tensor | None,
        context: Context,
    ) -> Steps[Tensor]:
        """Return attention outputs ``[B, S, H]``.

        Parameters
        ----------
        positions_BS
            Each token's number in its sequence.
        mask_BSC
            True where a token may look, over the columns that ``context`` gives;
            None: causal.
        """
        q_BSND, turned_BSNR = self._queries(x_BSH, positions_BS)
        new_BSK = self._latents(x_BSH, positions_BS)
        (kept_BCK,) = yield from context.extend(self.layer, new_BSK)
        absorbed = self.absorbed
        if absorbed is None:
            absorbed = kept_BCK.shape[1] > x_BSH.shape[1]
        form = self._absorbed if absorbed else self._naive
        y_BSNV = form(q_BSND, turned_BSNR, kept_BCK, mask_BSC)
        return y_BSNV.flatten(2) @ self.w_o

    def _queries(self, x_BSH: Tensor, positions_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unrotated and the rotated part of every head's query."""
        if self.w_q_down is not None and self.norm_q is not None:
            x_BSH = self.norm_q(x_BSH @ self.w_q_down)
        q = (x_BSH @ self.w_q).unflatten(-1, (self.dims.heads, -1))
        plain, turned = q.split([self.dims.head_dim, self.dims.rope_head_dim], dim=-1)
        return plain, rotate(turned, positions_BS)

    def _latents(self, x_BSH: Tensor, positions_BS: Tensor) -> Tensor:
        """Return what is kept, [B, S, K]: the latent, then the rotated key part."""
        latent, turned = self._parts(x_BSH @ self.w_kv_down)
        key = rotate(turned[:, :, None], positions_BS)[:, :, 0]
        return torch.cat([self.norm_kv(latent), key], dim=-1)

    def _parts(self, kept_BCK: Tensor) -> tuple[Tensor, Tensor]:
        """Split what is kept into latents and rotated parts."""
        latent, key = kept_BCK.split(
            [self.dims.kv_lora_rank, self.dims.rope_head_dim], dim=-1
        )
        return latent, key

    def _naive(
        self,
        q_BSND: Tensor,
        turned_BSNR: Tensor,
        kept_BCK: Tensor,
        mask_BSC: Tensor | None,
    ) -> Tensor:
        latent_BCL, key_BCR = self._parts(kept_BCK)
        k = torch.einsum("bcl,nld->bcnd", latent_BCL, self.w_k)
        v = torch.einsum("bcl,nlv->bcnv", latent_BCL, self.w_v)
        shared = key_BCR[:, :, None].expand(-1, -1, self.dims.heads, -1)
        return attend(
            torch.cat([q_BSND, turned_BSNR], dim=-1),
            torch.cat([k, shared], dim=-1),
            v,
            mask_BSC,
            scale=self._scale,
        )

    def _absorbed(
        self,
        q_BSND: Tensor,
        turned_BSNR: Tensor,
        kept_BCK: Tensor,
        mask_BSC: Tensor | None,
    ) -> Tensor:
        q = torch.einsum("bsnd,nld->bsnl", q_BSND, self.w_k)
        attended = attend(
            torch.cat([q, turned_BSNR], dim=-1),
            kept_BCK[:, :, None],
            self._parts(kept_BCK)[0][:, :, None],
            mask_BSC,
            scale=self._scale,
        )
        return torch.einsum("bsnl,nlv->bsnv", attended, self.w_v)

    @property
    def _scale(self) -> float:
        """Over the width of a query, whichever form computes."""
        return float((self.dims.head_dim + self.dims.rope_head_dim) ** -0.5)


def _weights(rows: int, columns: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * gain * rows**-0.5)
