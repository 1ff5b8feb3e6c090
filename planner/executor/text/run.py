"""Real routing: the model reads the trace's text, and its own router chooses.

The same batches of sequences run once unsharded and once with placed experts.
Tokens of one sequence may live on several ranks: what attention looks back on is
then gathered from all of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from planner.arrays import IntArray
from planner.errors import TraceError
from planner.executor.gating.rerouting import Rerouting
from planner.executor.host import Host
from planner.executor.model.decoder import Decoder
from planner.executor.placement import Placement, one_thread
from planner.executor.result import Moved
from planner.executor.stepping import interleave
from planner.executor.streams import lanes_on
from planner.executor.text.base import TextBatch, TextPass
from planner.executor.text.chained import ChainedPass
from planner.executor.text.round_trips import RoundTripPass
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

BATCH_TOKENS = 4096
"""Most tokens of a batch."""


@one_thread()
@torch.no_grad()
def replay_text(
    host: Host,
    placement: Placement,
    part: TokenPart,
    *,
    model: Decoder,
    model_spec: MoEModelSpec,
    token_ids: IntArray,
    seq_ids: IntArray,
    rerouting: Rerouting | None = None,
) -> Moved:
    """Run the model on the part's text.

    Parameters
    ----------
    token_ids, seq_ids
        Token and sequence of every token of the part, [T]; a sequence's tokens are
        in the order of its text, and all of them are in the part.
    rerouting
        Where tokens go in place of the router's choice.

    Raises
    ------
    TraceError
        If the model has other MoE layers than the plan, or other tokens.
    ReplayMismatch
        If a message is lost.
    VerificationError
        If a chosen expert has no copy.
    """
    check_text(placement.plan.layer_numbers, model, token_ids)
    kind: type[TextPass[Any]] = ChainedPass if placement.chained else RoundTripPass
    run = kind(host, placement, part, model, model_spec)
    run.rerouting = rerouting
    batches = (
        TextBatch.of(rows_BS, token_ids, host.device)
        for rows_BS in sequence_batches(seq_ids)
    )
    with lanes_on(host.device, placement.pace["at_once"]) as lane:
        errors = interleave(
            map(run.through, batches), watch=host.watch, lane=lane, **placement.pace
        )
    for layer, placed in enumerate(run.placed):
        run.tally.close(layer, placed)
    agreeing, all_ids = host.total(np.asarray([run.agreeing, run.ids]))
    return run.tally.moved(
        max(errors, default=0.0), ids_agreeing=float(agreeing / max(1, all_ids))
    )


def check_text(numbers: tuple[int, ...], model: Decoder, token_ids: IntArray) -> None:
    """Refuse a text or a plan that is not the model's.

    Parameters
    ----------
    numbers
        Layers of the plan.

    Raises
    ------
    TraceError
        If the model has other MoE layers, or other tokens.
    """
    if model.config.moe_layers != numbers:
        raise TraceError(
            f"has MoE layers {list(model.config.moe_layers)}, the plan has "
            f"{list(numbers)}",
            where="gating real",
            fix="replay with forced routing",
        )
    vocab = model.config.vocab
    if token_ids.size and not 0 <= token_ids.min() <= token_ids.max() < vocab:
        raise TraceError(
            f"must be from 0 to {vocab - 1}",
            where="column token_id",
            value=int(token_ids.max()),
        )


def sequence_batches(seq_ids: IntArray) -> Iterator[IntArray]:
    """Rows of whole sequences, of like lengths, padded with -1: [B, S] each."""
    order = np.argsort(seq_ids, kind="stable")
    starts = np.flatnonzero(np.diff(seq_ids[order], prepend=np.int64(-1)))
    sequences: Sequence[IntArray] = sorted(np.split(order, starts[1:]), key=len)
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
