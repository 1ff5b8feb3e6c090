"""Attention and feed-forward parts divided over the ranks of a group.

Attention is divided by heads, a feed-forward part by columns of its first matrix
and rows of its second; what comes out is added up by one all-reduce (Megatron-LM,
arXiv:1909.08053). A rank's weights are exact slices of the whole model's.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from planner.errors import ModelError
from planner.executor.model.attention.grouped import GroupedAttention
from planner.executor.model.attention.latent import LatentAttention
from planner.executor.model.config import GroupedDims
from planner.executor.model.context import Context
from planner.executor.model.feed_forward import FeedForward
from planner.executor.parallel.collectives import added, adding, copied
from planner.executor.parallel.gradients import Copies, Gradients
from planner.executor.parallel.share import Share
from planner.executor.stepping import Steps

Attention = GroupedAttention | LatentAttention


class ParallelAttention(nn.Module):
    """Some heads of an attention part; the ranks' outputs are added up.

    Multi-head attention and the up-projections of latent attention are divided by
    heads. Where there are fewer heads of keys and values than ranks, ranks whose
    query heads share one hold copies of it; latents are whole on every rank.

    Parameters
    ----------
    whole
        The part to be divided.

    Attributes
    ----------
    own
        This rank's heads, an attention part of fewer heads.
    gradients
        Of what other ranks hold as well, each has a part of the gradient.
    """

    def __init__(self, whole: Attention, share: Share, group: Any) -> None:
        super().__init__()
        self._group = group
        self.own: Attention
        self.gradients: Gradients
        if isinstance(whole, GroupedAttention):
            self.own, self.gradients = _grouped(whole, share, group)
        else:
            self.own, self.gradients = _latent(whole, share, group)

    def steps(
        self,
        x_BSH: Tensor,
        *,
        positions_BS: Tensor,
        mask_BSC: Tensor | None,
        context: Context,
    ) -> Steps[Tensor]:
        """Return the outputs of all heads; arguments are those of the whole part."""
        y_BSH = yield from self.own.steps(
            copied(x_BSH, self._group),
            positions_BS=positions_BS,
            mask_BSC=mask_BSC,
            context=context,
        )
        return (yield from adding(y_BSH, self._group))


class ParallelFeedForward(nn.Module):
    """Columns of the first matrix and rows of the second; outputs are added up."""

    def __init__(self, whole: FeedForward, share: Share, group: Any) -> None:
        super().__init__()
        self._group, self._apply_expert = group, whole.apply_expert
        w_in, w_out = inner_slices(whole.w_in.detach(), whole.w_out.detach(), share)
        self.w_in, self.w_out = nn.Parameter(w_in), nn.Parameter(w_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the whole part's output for tokens ``[..., H]``."""
        y = self._apply_expert(copied(x, self._group), self.w_in, self.w_out)
        return added(y, self._group)


def inner_slices(w_in: Tensor, w_out: Tensor, share: Share) -> tuple[Tensor, Tensor]:
    """Return a rank's columns of ``[..., H, W]`` and rows of ``[..., F, H]``.

    Where ``w_in`` has a gate beside each value (W = 2F), both halves are cut.
    """
    ffn = w_out.shape[-2]
    share.count(ffn, "inner width")
    halves = w_in.unflatten(-1, (-1, ffn))
    columns = share.of(halves, -1).flatten(-2)
    return columns.contiguous(), share.of(w_out, -2).clone()


def _grouped(
    whole: GroupedAttention, share: Share, group: Any
) -> tuple[GroupedAttention, Gradients]:
    dims = whole.dims
    heads = share.count(dims.heads, "attention.heads")
    kept_M = kv_heads_of(dims, share)
    own_dims = replace(dims, heads=heads, kv_heads=len(kept_M))
    q, k, v = _by_head(whole.w_qkv.detach(), 1, dims.head_dim).split(
        [dims.heads, dims.kv_heads, dims.kv_heads], dim=1
    )
    parts = [share.of(q, 1), k[:, kept_M], v[:, kept_M]]
    state = {
        "w_qkv": torch.cat(parts, dim=1).flatten(1),
        "w_o": _own_rows(whole.w_o.detach(), dims.head_dim, share),
    }
    with torch.random.fork_rng(devices=[]):
        own = GroupedAttention(whole.w_qkv.shape[0], own_dims, whole.layer)
    _assign(own, state)
    if share.parts <= dims.kv_heads:
        return own, Gradients()
    # Columns of queries are one rank's own; those of its key and value head are not.
    device = whole.w_qkv.device
    entry = torch.full((heads + 2, dims.head_dim), -1, device=device)
    within = torch.arange(dims.head_dim, device=device)
    entry[heads] = kept_M[0] * dims.head_dim + within
    entry[heads + 1] = (dims.kv_heads + kept_M[0]) * dims.head_dim + within
    shared = Copies(
        parameter=own.w_qkv,
        dim=1,
        entry_N=entry.flatten(),
        entries=2 * dims.kv_heads * dims.head_dim,
        group=group,
    )
    return own, Gradients(copies=(shared,))


def kv_heads_of(dims: GroupedDims, share: Share) -> list[int]:
    """Return the heads of keys and values that a rank's query heads look at."""
    if dims.kv_heads % share.parts == 0:
        each = dims.kv_heads // share.parts
        return list(range(share.index * each, (share.index + 1) * each))
    if share.parts % dims.kv_heads == 0:
        return [share.index * dims.kv_heads // share.parts]
    raise ModelError(
        f"must divide the {share.parts} ranks that share it, or be divisible by them",
        where="attention.kv_heads",
        value=dims.kv_heads,
    )


def _latent(
    whole: LatentAttention, share: Share, group: Any
) -> tuple[LatentAttention, Gradients]:
    dims = whole.dims
    heads = share.count(dims.heads, "attention.heads")
    state = {name: value.detach() for name, value in whole.state_dict().items()}
    key = dims.head_dim + dims.rope_head_dim
    state["w_q"] = share.of(_by_head(state["w_q"], 1, key), 1).flatten(1)
    state["w_o"] = _own_rows(state["w_o"], dims.v_head_dim, share)
    for name in "w_k", "w_v":
        state[name] = share.of(state[name], 0)
    with torch.random.fork_rng(devices=[]):
        own = LatentAttention(
            whole.w_kv_down.shape[0], replace(dims, heads=heads), whole.layer
        )
    _assign(own, state)
    own.absorbed = whole.absorbed
    divided = {"w_q", "w_o", "w_k", "w_v"}
    alike = [p for name, p in own.named_parameters() if name not in divided]
    return own, Gradients(wholes=((group, tuple(alike)),))


def _by_head(weights: Tensor, dim: int, width: int) -> Tensor:
    return weights.unflatten(dim, (-1, width))


def _own_rows(w_o: Tensor, width: int, share: Share) -> Tensor:
    """Return the rows of an output projection that belong to a rank's heads."""
    return share.of(_by_head(w_o, 0, width), 0).flatten(0, 1)


def _assign(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Put weights in the place of drawn ones, in memory of their own."""
    kept = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    module.load_state_dict(kept, assign=True)
