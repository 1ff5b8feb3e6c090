"""The decoder: embeddings, blocks of attention and feed-forward parts, logits."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from planner.errors import ModelError
from planner.executor.model.attention.grouped import GroupedAttention
from planner.executor.model.attention.latent import LatentAttention
from planner.executor.model.config import DecoderConfig, LatentDims
from planner.executor.model.context import (
    POSITIONS,
    Context,
    NothingKept,
    counted,
    visible,
)
from planner.executor.model.feed_forward import FeedForward
from planner.executor.model.moe import MoELayer, RoutedFn
from planner.executor.stepping import Steps, finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What every block needs to know of the tokens at hand.

    Attributes
    ----------
    positions_BS
        Each token's number in its sequence; -1 for padding.
    mask_BSC
        True where a token may look; None: causal.
    routed_N
        Tokens of the flattened batch that routed experts see; None: all.
    routed_by
        Computes the routed experts, by layer; empty: as the layers are set.
    """

    positions_BS: Tensor
    mask_BSC: Tensor | None
    routed_N: Tensor | None
    context: Context
    routed_by: Mapping[int, RoutedFn]


class Block(nn.Module):
    """Attention and a dense or routed feed-forward part, both pre-normalised."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm_attn = nn.RMSNorm(config.hidden, eps=1e-5)
        self.attn = _attention(config, layer)
        self.norm_ffn = nn.RMSNorm(config.hidden, eps=1e-5)
        self.ffn = (
            MoELayer(config)
            if layer in config.moe_layers
            else FeedForward(config.hidden, config.dense_ffn, config.activation)
        )

    def steps(self, x_BSH: Tensor, batch: Batch) -> Steps[Tensor]:
        """Return the residual stream ``[B, S, H]`` after this block."""
        attended = yield from self.attn.steps(
            self.norm_attn(x_BSH),
            positions_BS=batch.positions_BS,
            mask_BSC=batch.mask_BSC,
            context=batch.context,
        )
        x_BSH = x_BSH + attended
        normed = self.norm_ffn(x_BSH)
        if isinstance(self.ffn, MoELayer):
            y_TH = yield from self.ffn.steps(
                normed.flatten(0, 1),
                batch.routed_N,
                batch.routed_by.get(self.layer),
            )
            return x_BSH + y_TH.view_as(x_BSH)
        return x_BSH + self.ffn(normed)


class Decoder(nn.Module):
    """Embeddings, ``config.layers`` blocks, a last norm, logits.

    Parameters
    ----------
    config
        Dimensions of the model.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab, config.hidden) * 0.05)
        self.blocks = nn.ModuleList(
            Block(config, layer) for layer in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.hidden, eps=1e-5)
        self.head = (
            None
            if config.tied
            else nn.Parameter(torch.randn(config.vocab, config.hidden) * 0.05)
        )

    @property
    def moe(self) -> dict[int, MoELayer]:
        """The layers with experts by their layer index."""
        return {layer: self.blocks[layer].ffn for layer in self.config.moe_layers}

    def steps(
        self,
        tokens_BS: Tensor,
        *,
        positions_BS: Tensor | None = None,
        mask_BS: Tensor | None = None,
        context: Context | None = None,
        routed_by: Mapping[int, RoutedFn] | None = None,
    ) -> Steps[Tensor]:
        """Return logits ``[B, S, V]``, pausing where rows travel.

        Parameters
        ----------
        tokens_BS
            Token ids; any id of the vocabulary where there is padding.
        positions_BS
            Each token's number in its sequence. None: the real tokens are counted
            from 0; needed with a ``context``, which may hold earlier ones.
        mask_BS
            True where a token is real, False for padding, which no token sees and
            no routed expert either; None: all are.
        context
            What attention looks back on beside these tokens; None: nothing.
        routed_by
            Computes the routed experts of this pass, by layer; layers it does not
            name do as they are set.

        Raises
        ------
        ModelError
            If a sequence is longer than the model's context.
        """
        batch = yield from self._batch(tokens_BS, positions_BS, mask_BS, context)
        batch = replace(batch, routed_by=routed_by or {})
        x_BSH = F.embedding(tokens_BS, self.embed)
        for block in self.blocks:
            x_BSH = yield from block.steps(x_BSH, batch)
        return self.norm(x_BSH) @ (self.embed if self.head is None else self.head).T

    def forward(
        self,
        tokens_BS: Tensor,
        *,
        positions_BS: Tensor | None = None,
        mask_BS: Tensor | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Return logits ``[B, S, V]``; the arguments are those of ``steps``."""
        return finish(
            self.steps(
                tokens_BS, positions_BS=positions_BS, mask_BS=mask_BS, context=context
            )
        )

    def _batch(
        self,
        tokens_BS: Tensor,
        positions_BS: Tensor | None,
        mask_BS: Tensor | None,
        context: Context | None,
    ) -> Steps[Batch]:
        """Work out what the blocks need to know."""
        if positions_BS is None and context is not None:
            raise ModelError("must be given with a context", where="positions")
        plain = positions_BS is None and mask_BS is None
        if mask_BS is None:
            mask_BS = torch.ones_like(tokens_BS, dtype=torch.bool)
        if positions_BS is None:
            positions_BS = counted(mask_BS)
        positions_BS = positions_BS.masked_fill(~mask_BS, -1)
        self._check_length(positions_BS)
        context = NothingKept() if context is None else context
        mask_BSC = None
        if not plain:
            (columns_BC,) = yield from context.extend(POSITIONS, positions_BS)
            mask_BSC = visible(positions_BS, columns_BC)
        return Batch(
            positions_BS=positions_BS,
            mask_BSC=mask_BSC,
            routed_N=self._routed(tokens_BS, mask_BS),
            context=context,
            routed_by={},
        )

    def routes(self, tokens: Tensor) -> Tensor:
        """Return which token ids go to routed experts, as booleans of their shape."""
        unrouted = torch.tensor(
            self.config.unrouted_ids, device=tokens.device, dtype=tokens.dtype
        )
        return torch.isin(tokens, unrouted, invert=True)

    def _routed(self, tokens_BS: Tensor, mask_BS: Tensor) -> Tensor | None:
        """Return which tokens of the flattened batch go to routed experts."""
        routed_BS = mask_BS
        if self.config.unrouted_ids:
            routed_BS = mask_BS & self.routes(tokens_BS)
        if bool(routed_BS.all()):
            return None
        return routed_BS.flatten().nonzero().flatten()

    def _check_length(self, positions_BS: Tensor) -> None:
        length = 1 + int(positions_BS.max()) if positions_BS.numel() else 0
        if length > self.config.context:
            raise ModelError(
                f"must be at most {self.config.context} tokens long",
                where="sequence",
                value=length,
            )


def _attention(config: DecoderConfig, layer: int) -> GroupedAttention | LatentAttention:
    if isinstance(config.attention, LatentDims):
        return LatentAttention(config.hidden, config.attention, layer)
    return GroupedAttention(config.hidden, config.attention, layer)
