"""Gradients that several ranks hold parts of, added up after the backward pass.

An all-reduce leaves the same bits on every rank, so parameters that were equal and
take equal steps stay equal to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from planner.executor.parallel.collectives import summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Entries of a parameter that ranks of a group hold several copies of.

    Attributes
    ----------
    dim
        The dimension that the entries lie along.
    entry_N
        Which entry each place of that dimension holds; -1: none that is shared.
    entries
        How many shared entries there are.
    """

    parameter: nn.Parameter
    dim: int
    entry_N: Tensor
    entries: int
    group: Any

    def add_up(self) -> None:
        """Give every copy the sum of all copies' gradients."""
        gradient = gradient_of(self.parameter)
        place_M = torch.nonzero(self.entry_N >= 0).flatten()
        entry_M = self.entry_N[place_M]
        shape = list(gradient.shape)
        shape[self.dim] = self.entries
        own = gradient.new_zeros(shape).index_add(
            self.dim, entry_M, gradient.index_select(self.dim, place_M)
        )
        total = summed(own, self.group).index_select(self.dim, entry_M)
        self.parameter.grad = gradient.index_copy(self.dim, place_M, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradients:
    """What is to be added up over which ranks.

    Attributes
    ----------
    wholes
        Groups, and the parameters of which each of its ranks has a part of the
        gradient.
    copies
        Parameters of which some entries have copies.
    """

    wholes: tuple[tuple[Any, tuple[nn.Parameter, ...]], ...] = ()
    copies: tuple[Copies, ...] = ()

    def add_up(self) -> None:
        """Add up all gradients; every rank of every group calls this."""
        for group, parameters in self.wholes:
            add_up(parameters, group)
        for copies in self.copies:
            copies.add_up()


def add_up(parameters: Sequence[nn.Parameter], group: Any) -> None:
    """Give every rank the sum of the gradients of all, by one all-reduce."""
    if not parameters:
        return
    gradients = [gradient_of(parameter) for parameter in parameters]
    total = summed(torch.cat([gradient.flatten() for gradient in gradients]), group)
    parts = total.split([gradient.numel() for gradient in gradients])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).clone()


def gradient_of(parameter: nn.Parameter) -> Tensor:
    """Return the gradient; zeros where nothing came of the parameter."""
    gradient: Tensor | None = parameter.grad
    return torch.zeros_like(parameter) if gradient is None else gradient


def together(parts: Sequence[Gradients]) -> Gradients:
    """Return what several parts of a model need."""
    return Gradients(
        wholes=tuple(chain.from_iterable(part.wholes for part in parts)),
        copies=tuple(chain.from_iterable(part.copies for part in parts)),
    )
