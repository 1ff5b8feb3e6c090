"""Multi-head, grouped-query and multi-query attention (arXiv:2305.13245)."""

import torch
from torch import Tensor, nn

from planner.executor.model.attention.kernel import attend
from planner.executor.model.config import GroupedDims
from planner.executor.model.context import Context
from planner.executor.model.rotary import rotate
from planner.executor.stepping import Steps


class GroupedAttention(nn.Module):
    """Query heads in groups that share a head of keys and values.

    Attributes
    ----------
    w_qkv
        Queries, then keys, then values: ``[H, (N + 2M) D]`` for N query heads and
        M heads of keys and values, of D values each.
    w_o
        Output projection ``[N D, H]``.
    """

    def __init__(self, hidden: int, dims: GroupedDims, layer: int) -> None:
        super().__init__()
        self.dims, self.layer = dims, layer
        inner, shared = dims.heads * dims.head_dim, dims.kv_heads * dims.head_dim
        self._widths = [inner, shared, shared]
        self.w_qkv = nn.Parameter(torch.randn(hidden, sum(self._widths)) * hidden**-0.5)
        self.w_o = nn.Parameter(torch.randn(inner, hidden) * 0.3 * inner**-0.5)

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
        q, k, v = (
            part.unflatten(-1, (-1, self.dims.head_dim))
            for part in (x_BSH @ self.w_qkv).split(self._widths, dim=-1)
        )
        q, k = rotate(q, positions_BS), rotate(k, positions_BS)
        k, v = yield from context.extend(self.layer, k, v)
        y = attend(q, k, v, mask_BSC, scale=self.dims.head_dim**-0.5)
        return y.flatten(2) @ self.w_o
