"""Biases that balance a text, and what a text's choices become under them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from planner.arrays import FloatArray, IntArray
from planner.executor.gating.balancing import Balance
from planner.executor.gating.rerouting import Rerouting
from planner.executor.model.weights import load_model
from planner.executor.placement import one_thread
from planner.executor.text.reading import Reader, balanced
from planner.executor.text.run import check_text, sequence_batches


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Text:
    """Token and sequence of every token of a part."""

    token_ids: IntArray
    seq_ids: IntArray


@one_thread()
@torch.no_grad()
def reroute_text(
    weights: Path,
    fitted: Text,
    shown: Sequence[Text],
    *,
    numbers: tuple[int, ...],
    balance: Balance | None,
    capacity_factor: float | None,
) -> tuple[list[Rerouting], FloatArray]:
    """Find biases on one text and read others with them.

    Parameters
    ----------
    fitted
        The text whose loads the biases follow.
    numbers
        Layers of the plan.
    balance
        How biases follow loads; None: they stay as they are.
    capacity_factor
        Limit of every expert in every batch of ``shown``; the biases follow what is
        wanted and not what finds room.

    Returns
    -------
    reroutings, worst_SL
        One per text of ``shown``; and by step of balancing the greatest relative
        load of every layer.

    Raises
    ------
    TraceError
        If the plan or a text is not the model's.
    """
    model = load_model(weights, weights.with_suffix(".json"))

    newcomers = 1.0 if balance is None else balance.newcomers

    def reader(text: Text) -> Reader:
        check_text(numbers, model, text.token_ids)
        batches = list(sequence_batches(text.seq_ids))
        return Reader(model, batches, text.token_ids, newcomers)

    shape = (len(numbers), model.config.experts)
    bias_LE, worst_SL = np.zeros(shape), np.zeros((0, shape[0]))
    if balance is not None:
        bias_LE, worst_SL = balanced(reader(fitted), balance)
    return [
        reader(text).compared(bias_LE, capacity_factor)[1] for text in shown
    ], worst_SL
