"""Biases that balance a text, and what a text's choices become under them."""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from planner.arrays import ExactArray, FloatArray, IntArray
from planner.executor.gating.balancing import Balance
from planner.executor.gating.rerouting import OutputChange, Rerouting
from planner.executor.host import Host
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


Decision: TypeAlias = tuple[list[Rerouting], FloatArray]
"""What :func:`reroute_text` returns."""


def decided_once(host: Host, decide: Callable[[], Decision]) -> Decision:
    """Let the first process decide and tell all.

    Machines round apart, and all ranks must send tokens where the others expect them.
    """
    if len(host.hosted) == host.ranks:
        return decide()
    packed = bytearray()

    def length() -> Tensor:
        packed.extend(_packed(*decide()))
        return torch.tensor([len(packed)], device=host.device)

    size = host.from_first(
        length, torch.zeros(1, dtype=torch.int64, device=host.device)
    )
    told = host.from_first(
        lambda: torch.frombuffer(packed, dtype=torch.uint8).to(host.device),
        torch.empty(int(size), dtype=torch.uint8, device=host.device),
    )
    return _unpacked(told.cpu().numpy().tobytes())


def _packed(reroutings: Sequence[Rerouting], worst_SL: FloatArray) -> bytes:
    arrays: dict[str, ExactArray] = {"worst": worst_SL}
    for number, each in enumerate(reroutings):
        assert each.outputs is not None
        found = {
            "wanted": each.wanted_LTK,
            "kept": each.kept_LTK,
            "newcomer": each.newcomer_LTK,
            "newcomers": np.asarray(each.newcomers),
            "bias": each.bias_LE,
            "outputs": np.asarray(astuple(each.outputs)),
        }
        arrays |= {f"{number}/{k}": v for k, v in found.items() if v is not None}
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Decision:
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        found = dict(arrays)
    worst_SL = found.pop("worst")
    reroutings = []
    for number in range(len({name.partition("/")[0] for name in found})):
        at = f"{number}/"
        kl, before, after = found[at + "outputs"].tolist()
        reroutings.append(
            Rerouting(
                wanted_LTK=found[at + "wanted"],
                kept_LTK=found[at + "kept"],
                newcomer_LTK=found.get(at + "newcomer"),
                newcomers=float(found[at + "newcomers"]),
                bias_LE=found.get(at + "bias"),
                outputs=OutputChange(
                    kl=kl, perplexity_before=before, perplexity_after=after
                ),
            )
        )
    return reroutings, worst_SL
