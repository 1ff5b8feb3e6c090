"""Some of a decoder's blocks: a stage of a pipeline, or all of them."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from planner.executor.model.decoder import Decoder
from planner.executor.model.moe import MoELayer, RoutedFn
from planner.executor.parallel.share import Share
from planner.executor.stepping import Steps


class Stage(Decoder):
    """Consecutive blocks of a decoder, with weights of their own.

    The first stage embeds tokens, the last one returns logits; both hold the
    embeddings where they are tied. As even as can be: the first stages have one block
    more where the blocks cannot be divided.

    Parameters
    ----------
    whole
        The decoder, of which this is a part.
    """

    def __init__(self, whole: Decoder, share: Share) -> None:
        nn.Module.__init__(self)
        self.config, self.share = whole.config, share
        self.first, self.last = share.index == 0, share.index == share.parts - 1
        layers = layers_of(whole.config.layers, share)
        self.blocks = nn.ModuleList(deepcopy(whole.blocks[layer]) for layer in layers)
        for layer in self.moe.values():
            # A copied layer would go on computing with the weights of the whole one.
            layer.compute_here()
        ends = whole.head is None and self.last
        self.embed = deepcopy(whole.embed) if self.first or ends else None
        self.norm = deepcopy(whole.norm) if self.last else None
        self.head = deepcopy(whole.head) if self.last else None

    @property
    def moe(self) -> dict[int, MoELayer]:
        """The layers with experts by their layer index."""
        return {
            block.layer: block.ffn
            for block in self.blocks
            if isinstance(block.ffn, MoELayer)
        }

    @property
    def tied(self) -> nn.Parameter | None:
        """The embeddings, where another stage holds them as well."""
        twice = self.config.tied and self.first != self.last
        return self.embed if twice else None

    def part(
        self,
        x_BSH: Tensor | None,
        tokens_BS: Tensor,
        *,
        mask_BS: Tensor | None = None,
        routed_by: Mapping[int, RoutedFn] | None = None,
    ) -> Steps[Tensor]:
        """Return the residual stream after these blocks, from the last stage logits.

        Parameters
        ----------
        x_BSH
            The residual stream from the stage before; None for the first one.
        tokens_BS, mask_BS, routed_by
            Those of :meth:`Decoder.steps`; every stage needs to know which tokens
            are real.
        """
        batch = yield from self._batch(tokens_BS, None, mask_BS, None)
        batch = replace(batch, routed_by=routed_by or {})
        if x_BSH is None:
            x_BSH = F.embedding(tokens_BS, self.embed)
        for block in self.blocks:
            x_BSH = yield from block.steps(x_BSH, batch)
        if self.norm is None:
            return x_BSH
        head = self.embed if self.head is None else self.head
        return self.norm(x_BSH) @ head.T


def layers_of(layers: int, share: Share) -> range:
    """Return the layers of one of several stages."""
    each, more = divmod(layers, share.parts)
    first = share.index * each + min(share.index, more)
    return range(first, first + each + (share.index < more))
