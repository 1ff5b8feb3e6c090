"""What attention looks back on: nothing but the tokens at hand, or a cache."""

from typing import Protocol

import torch
from torch import Tensor

from planner.executor.stepping import Steps

POSITIONS = -1
"""The layer number under which columns' positions are kept."""


class Context(Protocol):
    """Where a layer's keys and values are kept or gathered."""

    def extend(self, layer: int, *new: Tensor) -> Steps[tuple[Tensor, ...]]:
        """Add tokens ``[B, S, ...]``; return all that may be seen, ``[B, C, ...]``.

        It pauses if something has to travel for that. ``layer`` is ``POSITIONS``
        for the positions of the tokens, which come first in a forward pass.
        """


class NothingKept:
    """The tokens at hand are all there is."""

    def extend(self, layer: int, *new: Tensor) -> Steps[tuple[Tensor, ...]]:
        """Return what it was given."""
        yield from ()
        return new


class KVCache:
    """Keeps what every layer's attention asks it to keep, in the order it came.

    Multi-head and grouped-query attention keep keys and values, latent attention
    the latent and the rotated key part.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def extend(self, layer: int, *new: Tensor) -> Steps[tuple[Tensor, ...]]:
        """Append ``[B, S, ...]`` and return everything so far, ``[B, C, ...]``."""
        yield from ()
        if layer in self._kept:
            pairs = zip(self._kept[layer], new, strict=True)
            new = tuple(torch.cat(pair, dim=1) for pair in pairs)
        self._kept[layer] = new
        return new

    @property
    def columns(self) -> int:
        """Tokens kept per sequence, padding included."""
        return self._kept[POSITIONS][0].shape[1] if POSITIONS in self._kept else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' values; the positions beside them are not counted."""
        return sum(
            tensor.nbytes
            for layer, tensors in self._kept.items()
            if layer != POSITIONS
            for tensor in tensors
        )


def counted(mask_BS: Tensor, before_B: Tensor | None = None) -> Tensor:
    """Number the real tokens of every sequence from 0; padding is -1.

    Parameters
    ----------
    mask_BS
        True where a token is real.
    before_B
        Real tokens that came before these; None: none.
    """
    numbers_BS = mask_BS.long().cumsum(dim=1) - 1
    if before_B is not None:
        numbers_BS = numbers_BS + before_B[:, None]
    return numbers_BS.masked_fill(~mask_BS, -1)


def visible(positions_BS: Tensor, columns_BC: Tensor) -> Tensor:
    """Return which columns each token sees: real ones, itself and earlier, [B, S, C].

    Both hold positions, -1 for padding. What a padded token sees is of no account:
    all, so that it has a finite output.
    """
    query, column = positions_BS[:, :, None], columns_BC[:, None]
    return ((column >= 0) & (column <= query)) | (query < 0)
