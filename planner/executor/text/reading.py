"""A text read by the model alone, nothing placed: choices, loads and odds."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from planner.arrays import BoolArray, FloatArray, IdArray, IntArray
from planner.executor.gating.balancing import Balance, DynamicBalance, relative
from planner.executor.gating.capacity import beyond
from planner.executor.gating.choice import choose
from planner.executor.gating.rerouting import OutputChange, Rerouting
from planner.executor.model.decoder import Decoder
from planner.executor.model.moe import MoELayer, at_once


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the model made of a batch.

    Attributes
    ----------
    rows_N
        The tokens that go to routed experts, as rows of the text.
    wanted_LNK, kept_LNK
        Experts that they chose, and those of them with room (-1 for the others).
    newcomer_LNK
        Which they would not have chosen without the biases added; all False where
        newcomers count as any other expert.
    odds_NV
        Logarithms of the odds of every next token, for all tokens.
    """

    rows_N: IntArray
    wanted_LNK: IntArray
    kept_LNK: IntArray
    newcomer_LNK: BoolArray
    odds_NV: Tensor


class Reader:
    """A model and a text in batches.

    Parameters
    ----------
    batches
        Rows of whole sequences, padded with -1: [B, S] each.
    token_ids
        Token of every row.
    newcomers
        What gates of experts are multiplied by that were not chosen without the
        biases added (:class:`Balance`).
    """

    def __init__(
        self,
        model: Decoder,
        batches: Sequence[IntArray],
        token_ids: IntArray,
        newcomers: float = 1.0,
    ) -> None:
        self.model, self.batches, self._token_ids = model, batches, token_ids
        self.newcomers = newcomers
        self.layers = list(model.moe.values())
        self._device = model.embed.device
        self._own_bias = [layer.bias for layer in self.layers]

    @property
    def size(self) -> int:
        """Tokens of the text."""
        return len(self._token_ids)

    def read(self, batch: int, capacity_factor: float | None = None) -> Reading:
        """Read a batch with the biases that the model has.

        Parameters
        ----------
        capacity_factor
            What limits each expert in this batch; choices without room are null
            (-1), their gates 0, and the other gates stay as they are.
        """
        rows_BS = self.batches[batch]
        real_BS = torch.from_numpy(rows_BS >= 0).to(self._device)
        text = np.where(rows_BS >= 0, self._token_ids[rows_BS], 0)
        text_BS = torch.from_numpy(text).to(self._device)
        notes = [
            _Notes(layer, own_E, self.newcomers, capacity_factor)
            for layer, own_E in zip(self.layers, self._own_bias, strict=True)
        ]
        for layer, note in zip(self.layers, notes, strict=True):
            layer.routed = at_once(note.combine)
        try:
            logits = self.model(text_BS, mask_BS=real_BS)
        finally:
            for layer in self.layers:
                layer.compute_here()
        routed_N = self.model.routes(text_BS[real_BS]).cpu().numpy()
        return Reading(
            rows_N=rows_BS[rows_BS >= 0][routed_N],
            wanted_LNK=np.stack([note.wanted_NK for note in notes]),
            kept_LNK=np.stack([note.kept_NK for note in notes]),
            newcomer_LNK=np.stack([note.newcomer_NK for note in notes]),
            odds_NV=torch.log_softmax(logits[real_BS], dim=-1),
        )

    def compared(
        self, bias_LE: FloatArray, capacity_factor: float | None = None
    ) -> tuple[IdArray, Rerouting]:
        """Read the text as it is, and with biases added and experts limited.

        Returns
        -------
        before_LTK, rerouting
            Experts by row of the text, and what became of them.
        """
        shape = (len(self.layers), self.size, self.model.config.top_k)
        before_LTK, wanted_LTK, kept_LTK = (
            np.full(shape, -1, dtype=np.int16) for _ in range(3)
        )
        newcomer_LTK = np.zeros(shape, dtype=np.bool_)
        said_2: FloatArray = np.zeros(2)
        kl, followed = 0.0, 0
        for batch, rows_BS in enumerate(self.batches):
            before = self.read(batch)
            with biased(self.layers, bias_LE):
                after = self.read(batch, capacity_factor)
            before_LTK[:, before.rows_N] = before.wanted_LNK
            wanted_LTK[:, after.rows_N] = after.wanted_LNK
            kept_LTK[:, after.rows_N] = after.kept_LNK
            newcomer_LTK[:, after.rows_N] = after.newcomer_LNK
            for number, reading in enumerate((before, after)):
                odds = self._of_next(rows_BS, reading)
                said_2[number] -= float(odds.sum())
            followed += len(odds)
            odds_NV = before.odds_NV
            kl += float((odds_NV.exp() * (odds_NV - after.odds_NV)).sum())
        perplexity_2 = np.exp(said_2 / max(1, followed))
        change = OutputChange(
            kl=kl / max(1, self.size),
            perplexity_before=float(perplexity_2[0]),
            perplexity_after=float(perplexity_2[1]),
        )
        return before_LTK, Rerouting(
            wanted_LTK=wanted_LTK,
            kept_LTK=kept_LTK,
            newcomer_LTK=newcomer_LTK if self.newcomers != 1 else None,
            newcomers=self.newcomers,
            bias_LE=bias_LE,
            outputs=change,
        )

    def _of_next(self, rows_BS: IntArray, reading: Reading) -> Tensor:
        """Return the odds of the tokens that follow, one per token that has one."""
        following_BS = np.full_like(rows_BS, -1)
        following_BS[:, :-1] = rows_BS[:, 1:]
        next_N = following_BS[rows_BS >= 0]
        has = torch.from_numpy(np.flatnonzero(next_N >= 0)).to(self._device)
        words = torch.from_numpy(self._token_ids[next_N[next_N >= 0]]).to(self._device)
        return reading.odds_NV[has].gather(1, words[:, None])


@contextmanager
def biased(layers: Sequence[MoELayer], bias_LE: FloatArray) -> Iterator[None]:
    """Add biases to those that the layers have, for a while."""
    own = [layer.bias for layer in layers]
    add_biases(layers, bias_LE)
    try:
        yield
    finally:
        for layer, bias_E in zip(layers, own, strict=True):
            layer.bias = bias_E


def add_biases(layers: Sequence[MoELayer], bias_LE: FloatArray) -> None:
    """Add biases to those that the layers have."""
    for layer, bias_E in zip(layers, bias_LE, strict=True):
        layer.bias = layer.bias + torch.from_numpy(bias_E).to(layer.bias)


def balanced(reader: Reader, balance: Balance) -> tuple[FloatArray, FloatArray]:
    """Let the biases follow the loads of the text, batch by batch, round and round.

    Returns
    -------
    bias_LE, worst_SL
        Biases after the last step, and in every step the greatest relative load
        of each layer over the window that ends with it.
    """
    shape = (len(reader.layers), reader.model.config.experts)
    dynamic = DynamicBalance(balance, shape)
    worst_SL = np.empty((balance.steps, shape[0]))
    for step in range(balance.steps):
        with biased(reader.layers, dynamic.bias_LE):
            reading = reader.read(step % len(reader.batches))
        dynamic.observe(loads(reading.wanted_LNK, shape[1]))
        worst_SL[step] = relative(dynamic.load_LE).max(axis=1)
    return dynamic.bias_LE, worst_SL


def loads(ids_LTK: IntArray | IdArray, experts: int) -> IntArray:
    """Return tokens per layer and expert, [L, E]; nulls (-1) count nowhere."""
    return np.stack(
        [np.bincount(ids[ids >= 0], minlength=experts) for ids in ids_LTK]
    ).astype(np.int64)


class _Notes:
    """Computes a layer's routed experts and keeps what was chosen."""

    def __init__(
        self,
        layer: MoELayer,
        own_bias_E: Tensor,
        newcomers: float,
        capacity_factor: float | None,
    ) -> None:
        self._layer, self._own_bias_E = layer, own_bias_E
        self._newcomers, self._capacity_factor = newcomers, capacity_factor
        self.wanted_NK: IntArray = np.empty((0, 0), dtype=np.int64)
        self.kept_NK = self.wanted_NK
        self.newcomer_NK: BoolArray = np.empty((0, 0), dtype=np.bool_)

    def combine(self, x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        layer = self._layer
        self.wanted_NK = self.kept_NK = ids.cpu().numpy()
        new = torch.zeros_like(ids, dtype=torch.bool)
        if self._newcomers != 1:
            own, _ = choose(layer.gate, layer.logits(x), self._own_bias_E)
            new = (ids[:, :, None] != own[:, None]).all(dim=2)
            gates = torch.where(new, gates * self._newcomers, gates)
        self.newcomer_NK = new.cpu().numpy()
        if self._capacity_factor is not None:
            late_NK = beyond(self.wanted_NK, len(layer.bias), self._capacity_factor)
            self.kept_NK = np.where(late_NK, -1, self.wanted_NK)
            late = torch.from_numpy(late_NK).to(gates.device)
            gates = gates.masked_fill(late, 0)
        y: Tensor = layer.combine_local(x, ids, gates)
        return y
