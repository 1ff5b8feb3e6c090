"""What every wire does: carry rows to the ranks they name, and answers back.

A process hosts one rank or several, and its rows of all of them lie in one tensor.
Axes besides those of :mod:`planner.arrays`: N rows at hand, H hidden size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from planner.arrays import IntArray
from planner.executor.stepping import Steps

Columns: TypeAlias = tuple[Tensor, ...]
"""Tensors with one row per message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """Rows that arrived, by rank, then in the order of the senders.

    Attributes
    ----------
    columns
        What was sent, row by row.
    rank_N
        The rank each row came to.
    from_N
        The rank it left from.
    back
        Carries one row per row that arrived to where that one came from, and
        returns the rows of the answer in the order they were sent.
    free
        Gives back the buffers of rows that no answer will follow.
    """

    columns: Columns
    rank_N: Tensor
    from_N: Tensor
    back: Callable[[Columns], Steps[Columns]]
    free: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Rows that arrived and stay, by rank."""

    columns: Columns
    rank_N: Tensor


class Wire(Protocol):
    """Carries the rows of one layer and counts those that change their rank.

    Attributes
    ----------
    ranks
        G, all ranks there are.
    first, hosted
        This process hosts the ranks ``first`` to ``first + hosted - 1``.
    dispatch_GG, combine_GG
        Rows that left the ranks hosted here so far, from rank, to rank; the
        diagonal is 0.
    """

    ranks: int
    first: int
    hosted: int
    dispatch_GG: IntArray
    combine_GG: IntArray

    def send(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Shipment]:
        """Carry rows (leg dispatch); answers are leg combine.

        Parameters
        ----------
        from_N, to_N
            Rank hosted here that each row lies on, and where it goes.
        """
        ...

    def gather(self, columns: Columns, from_N: Tensor, to_N: Tensor) -> Steps[Gathered]:
        """Carry rows that no answer will follow (leg combine, traffic ``direct``)."""
        ...


def counted(from_N: Tensor, to_N: Tensor, ranks: int) -> IntArray:
    """Count rows by the ranks they leave and come to, without those that stay."""
    counts = torch.bincount(from_N * ranks + to_N, minlength=ranks**2)
    found: IntArray = counts.reshape(ranks, ranks).fill_diagonal_(0).cpu().numpy()
    return found


def in_order(keys_N: Tensor) -> Tensor | None:
    """Return what sorts the keys, stable; None if they are sorted already."""
    if bool((keys_N[1:] >= keys_N[:-1]).all()):
        return None
    return torch.argsort(keys_N, stable=True)


def inverse(order_N: Tensor) -> Tensor:
    """Return the permutation that undoes another."""
    back_N = torch.empty_like(order_N)
    back_N[order_N] = torch.arange(len(order_N), device=order_N.device)
    return back_N
