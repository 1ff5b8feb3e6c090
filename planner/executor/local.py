"""Back end ``local``: every GPU of the plan is a virtual rank of this process."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from planner.arrays import FloatArray, IdArray, IntArray
from planner.errors import TraceError
from planner.executor.model.decoder import Decoder
from planner.executor.model.feed_forward import swiglu
from planner.executor.model.moe import at_once
from planner.executor.placement import (
    TINIEST,
    Placement,
    Tally,
    one_thread,
    relative_error,
)
from planner.executor.result import Moved
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

FORCED_HIDDEN = 16
FORCED_FFN = 16
FORCED_GAIN = 0.3
"""Size of expert outputs beside the residual stream, as trained models have it."""
CHUNK_TOKENS = 8192
BATCH_TOKENS = 4096


@one_thread()
def replay_forced(
    placement: Placement, part: TokenPart, *, model_spec: MoEModelSpec, seed: int = 0
) -> Moved:
    """Send every token to the experts that the trace names.

    Hidden states, gates and expert weights are drawn from ``seed`` at a reduced
    size; the residual stream carries them through all layers, once through the
    placed experts and once through unsharded ones.

    Raises
    ------
    ReplayMismatch
        If a GPU lacks an expert it is to serve, or a message is lost.
    VerificationError
        If a chosen expert has no copy.
    """
    generator = torch.Generator().manual_seed(seed)
    tally = Tally(placement, model_spec)
    x_TH = torch.randn(part.token_count, FORCED_HIDDEN, generator=generator)
    reference_TH = x_TH
    for layer, experts_TK in enumerate(part.experts_LTK):
        w_in_E, w_out_E = _seeded_experts(model_spec.experts, generator)
        gates_TK = _seeded_gates(experts_TK, generator)
        placed = placement.experts(layer, w_in_E, w_out_E)
        y_TH = torch.empty_like(x_TH)
        for rows in np.array_split(
            np.arange(part.token_count), -(-part.token_count // CHUNK_TOKENS)
        ):
            ids_TK = experts_TK[rows]
            y_TH[rows] = placed.run(
                x_TH[rows],
                gates_TK[rows],
                ids_TK,
                placement.targets(layer, ids_TK, part, rows),
                part.source_T[rows],
            )
        expected_TH = _unsharded(reference_TH, experts_TK, gates_TK, w_in_E, w_out_E)
        tally.close(layer, placed, relative_error(y_TH, expected_TH))
        x_TH, reference_TH = _normed(x_TH + y_TH), _normed(reference_TH + expected_TH)
    return tally.moved(relative_error(x_TH, reference_TH))


@one_thread()
@torch.no_grad()
def replay_real(
    placement: Placement,
    part: TokenPart,
    *,
    model: Decoder,
    model_spec: MoEModelSpec,
    token_ids: IntArray,
    seq_ids: IntArray,
) -> Moved:
    """Run the model on the part's text; its own router chooses the experts.

    The same batches run once with placed experts and once unsharded.

    Parameters
    ----------
    token_ids, seq_ids
        Token and sequence of every token of the part, [T]; a sequence's tokens are
        in the order of its text, and all of them are in the part.

    Raises
    ------
    TraceError
        If the model has other MoE layers than the plan, or other tokens.
    ReplayMismatch, VerificationError
        As :func:`replay_forced`.
    """
    numbers = placement.plan.layer_numbers
    if model.config.moe_layers != numbers:
        own = list(model.config.moe_layers)
        raise TraceError(
            f"has MoE layers {own}, the plan has {list(numbers)}",
            where="gating real",
            fix="replay with forced routing",
        )
    if (
        token_ids.size
        and not 0 <= token_ids.min() <= token_ids.max() < model.config.vocab
    ):
        raise TraceError(
            f"must be from 0 to {model.config.vocab - 1}",
            where="column token_id",
            value=int(token_ids.max()),
        )
    tally = Tally(placement, model_spec)
    run = _RealRun(placement, part, model)
    final_error = 0.0
    for rows_BS in _batches(seq_ids):
        final_error = max(final_error, run.both(rows_BS, token_ids))
    for index, experts in enumerate(run.placed):
        tally.close(index, experts, float(run.error_L[index]))
    recorded = part.experts_LTK[:, :, :, None]
    agreeing = (recorded == run.ids_LTK[:, :, None, :]).any(axis=3)
    return tally.moved(final_error, ids_agreeing=float(agreeing.mean()))


class _RealRun:
    """One model, run on batches of sequences unsharded and placed.

    ``rows_T`` are the part's tokens in the batch at hand and ``kept`` where they
    are among its padded positions.
    """

    def __init__(self, placement: Placement, part: TokenPart, model: Decoder) -> None:
        self._placement, self._part, self._model = placement, part, model
        self._layers = [model.moe[number] for number in placement.plan.layer_numbers]
        self.placed = [
            placement.experts(index, *layer.expert_weights)
            for index, layer in enumerate(self._layers)
        ]
        self.ids_LTK = np.full_like(part.experts_LTK, -1)
        self.error_L: FloatArray = np.zeros(len(self._layers))
        self._wanted: list[Tensor] = []
        self._rows: IntArray = np.empty(0, dtype=np.int64)
        self._kept = torch.empty(0, dtype=torch.int64)

    def both(self, rows_BS: IntArray, token_ids: IntArray) -> float:
        """Run a batch both ways; return how far the logits are apart."""
        self._rows = rows_BS[rows_BS >= 0]
        self._kept = torch.from_numpy(np.flatnonzero(rows_BS >= 0))
        self._wanted = []
        tokens = torch.from_numpy(np.where(rows_BS >= 0, token_ids[rows_BS], 0))
        logits = []
        for combine in (self._unsharded, self._spread):
            for index, layer in enumerate(self._layers):
                layer.routed = at_once(partial(combine, index))
            logits.append(self._model(tokens).flatten(0, 1)[self._kept])
        for layer in self._layers:
            layer.compute_here()
        return relative_error(logits[1], logits[0])

    def _unsharded(self, index: int, x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        y: Tensor = self._layers[index].combine_local(x, ids, gates)
        self._wanted.append(y[self._kept])
        return y

    def _spread(self, index: int, x: Tensor, ids: Tensor, gates: Tensor) -> Tensor:
        ids_TK = ids[self._kept].numpy()
        self.ids_LTK[index, self._rows] = ids_TK
        found = self.placed[index].run(
            x[self._kept],
            gates[self._kept],
            ids_TK,
            self._placement.targets(index, ids_TK, self._part, self._rows),
            self._part.source_T[self._rows],
        )
        error = relative_error(found, self._wanted[index])
        self.error_L[index] = max(self.error_L[index], error)
        return torch.zeros_like(x).index_copy(0, self._kept, found)


def _batches(seq_ids: IntArray) -> Iterator[IntArray]:
    """Rows of whole sequences, of like lengths, padded with -1: [B, S] each."""
    order = np.argsort(seq_ids, kind="stable")
    starts = np.flatnonzero(np.diff(seq_ids[order], prepend=np.int64(-1)))
    sequences = sorted(np.split(order, starts[1:]), key=len)
    first = 0
    for last, sequence in enumerate(sequences, start=1):
        following = len(sequences[last]) if last < len(sequences) else 0
        if following and (last + 1 - first) * following <= BATCH_TOKENS:
            continue
        rows_BS = np.full((last - first, len(sequence)), -1, dtype=np.int64)
        for row, members in enumerate(sequences[first:last]):
            rows_BS[row, : len(members)] = members
        yield rows_BS
        first = last


def _seeded_experts(experts: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    shape_in = (experts, FORCED_HIDDEN, 2 * FORCED_FFN)
    shape_out = (experts, FORCED_FFN, FORCED_HIDDEN)
    return (
        torch.randn(shape_in, generator=generator) * FORCED_HIDDEN**-0.5,
        torch.randn(shape_out, generator=generator) * FORCED_GAIN * FORCED_FFN**-0.5,
    )


def _seeded_gates(experts_TK: IdArray, generator: torch.Generator) -> Tensor:
    """Draw weights that sum to 1 over the experts that a token has."""
    drawn = torch.rand(experts_TK.shape, generator=generator) + 0.1
    drawn *= torch.from_numpy(experts_TK >= 0)
    return drawn / drawn.sum(dim=1, keepdim=True).clamp(min=TINIEST)


def _unsharded(
    x_TH: Tensor, experts_TK: IdArray, gates_TK: Tensor, w_in_E: Tensor, w_out_E: Tensor
) -> Tensor:
    """Compute every expert in one place, one after the other."""
    ids_TK = torch.from_numpy(experts_TK.astype(np.int64))
    y_TH = torch.zeros_like(x_TH)
    for expert in torch.unique(ids_TK[ids_TK >= 0]).tolist():
        token, choice = torch.nonzero(ids_TK == expert, as_tuple=True)
        done = swiglu(x_TH[token], w_in_E[expert], w_out_E[expert])
        y_TH.index_add_(0, token, done * gates_TK[token, choice][:, None])
    return y_TH


def _normed(x_TH: Tensor) -> Tensor:
    """Keep the residual stream at size 1 per value."""
    return x_TH / x_TH.square().mean(dim=1, keepdim=True).sqrt().clamp(min=TINIEST)
