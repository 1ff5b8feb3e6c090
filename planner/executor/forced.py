"""Forced routing: every token goes to the experts that a trace names.

Hidden states, gates and expert weights are drawn from a seed at a reduced size. The
residual stream carries tokens through all layers, once through the placed experts
and once through unsharded ones.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.arrays import IntArray
from planner.errors import ReplayMismatch
from planner.executor.direct import Standing
from planner.executor.host import Host, batches_of
from planner.executor.model.feed_forward import swiglu
from planner.executor.placement import (
    TINIEST,
    Homes,
    Placement,
    Tally,
    one_thread,
    relative_error,
)
from planner.executor.result import Moved
from planner.executor.seeded import uniform
from planner.executor.stepping import Steps, interleave
from planner.executor.streams import lanes_on
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import TokenPart

FORCED_HIDDEN = 16
FORCED_FFN = 16
FORCED_GAIN = 0.3
"""Size of expert outputs beside the residual stream, as trained models have it."""
BATCH_TOKENS = 16384
"""Most tokens of a batch."""


@one_thread()
@torch.no_grad()
def replay_forced(
    host: Host,
    placement: Placement,
    part: TokenPart,
    *,
    model_spec: MoEModelSpec,
    seed: int = 0,
) -> Moved:
    """Send every token to the experts that the trace names.

    Raises
    ------
    ReplayMismatch
        If a message is lost.
    VerificationError
        If a chosen expert has no copy.
    """
    run = _ForcedRun(host, placement, part, model_spec, seed)
    batches = batches_of(host, part.source_T, BATCH_TOKENS)
    with lanes_on(host.device, placement.pace["at_once"]) as lane:
        errors = interleave(
            map(run.through, batches), watch=host.watch, lane=lane, **placement.pace
        )
    for layer, placed in enumerate(run.placed):
        run.tally.close(layer, placed)
    return run.tally.moved(max(errors))


class _ForcedRun:
    """All layers of a part, batch by batch."""

    def __init__(
        self,
        host: Host,
        placement: Placement,
        part: TokenPart,
        model_spec: MoEModelSpec,
        seed: int,
    ) -> None:
        self._part, self._host, self._seed = part, host, seed
        self._homes = Homes(part, host)
        self.tally = Tally(placement, model_spec, host)
        layers = range(len(placement.plan.layer_numbers))
        self._weights = [
            seeded_experts(model_spec.experts, seed, layer, host.device)
            for layer in layers
        ]
        self._choices = [placement.choice(layer, host) for layer in layers]
        make = placement.direct if placement.chained else placement.experts
        self.placed: list[Any] = [
            make(layer, self._weights[layer], swiglu, host) for layer in layers
        ]
        self.through = self._chained if placement.chained else self._round_trips

    def _round_trips(self, rows: IntArray) -> Steps[float]:
        """Send a batch out and home again in every layer; return the final error."""
        token_N = torch.from_numpy(rows).to(self._host.device)
        rank_N = self._homes.source_T[token_N]
        x_NH = wanted_NH = self._start(rows)
        for layer, placed in enumerate(self.placed):
            ids_NK, gates_NK = self._routing(layer, rows)
            slots_NK = self._homes.slots(self._choices[layer], ids_NK, token_N)
            y_NH = yield from placed.steps(x_NH, gates_NK, slots_NK, rank_N)
            expected_NH = unsharded(wanted_NH, ids_NK, gates_NK, *self._weights[layer])
            self.tally.differs(layer, y_NH, expected_NH)
            x_NH, wanted_NH = _normed(x_NH + y_NH), _normed(wanted_NH + expected_NH)
        return relative_error(x_NH, wanted_NH)

    def _chained(self, rows: IntArray) -> Steps[float]:
        """Send a batch from layer to layer, and home at the end."""
        token_N = torch.from_numpy(rows).to(self._host.device)
        x_NH = self._start(rows)
        standing = Standing(
            x_NH=x_NH,
            token_N=token_N,
            rank_N=self._homes.source_T[token_N],
            # The residual stream rides beside what experts read, which may lose bits.
            carried=(x_NH, x_NH),
        )
        for layer, placed in enumerate(self.placed):
            ids_NK, gates_NK = self._routing(layer, standing.token_N.cpu().numpy())
            slots_NK = self._homes.slots(
                self._choices[layer], ids_NK, standing.token_N, standing.rank_N
            )
            moved, y_NH = yield from placed.steps(standing, gates_NK, slots_NK)
            standing = self._after(layer, moved, y_NH)
        home_N = self._homes.source_T[standing.token_N]
        home = yield from self.placed[-1].home(standing, home_N)
        if not torch.equal(home.token_N.sort().values, token_N):
            raise ReplayMismatch(["tokens came home to other ranks than their own"])
        return relative_error(home.x_NH, home.carried[1])

    def _after(self, layer: int, moved: Standing, y_NH: Tensor) -> Standing:
        """Close a layer where tokens stand now; the unsharded stream goes with them."""
        ids_NK, gates_NK = self._routing(layer, moved.token_N.cpu().numpy())
        residual_NH, wanted_NH = moved.carried
        expected_NH = unsharded(wanted_NH, ids_NK, gates_NK, *self._weights[layer])
        self.tally.differs(layer, y_NH, expected_NH)
        x_NH = _normed(residual_NH + y_NH)
        return replace(
            moved, x_NH=x_NH, carried=(x_NH, _normed(wanted_NH + expected_NH))
        )

    def _start(self, rows: IntArray) -> Tensor:
        """Draw hidden states of variance 1."""
        drawn_NH = uniform(self._seed, 0, rows, FORCED_HIDDEN) - 0.5
        return (drawn_NH * 12**0.5).to(self._host.device)

    def _routing(self, layer: int, rows: IntArray) -> tuple[Tensor, Tensor]:
        """Return the trace's ids, and gates that sum to 1 over those there are."""
        ids_NK = self._part.experts_LTK[layer, rows].astype(np.int64)
        gates_NK = uniform(self._seed, 2 * layer + 1, rows, ids_NK.shape[1]) + 0.1
        gates_NK *= torch.from_numpy(ids_NK >= 0)
        gates_NK /= gates_NK.sum(dim=1, keepdim=True).clamp(min=TINIEST)
        device = self._host.device
        return torch.from_numpy(ids_NK).to(device), gates_NK.to(device)


def seeded_experts(
    experts: int, seed: int, layer: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Draw the weights of one layer's experts, [E, H, 2F] and [E, F, H]."""
    width_in, width_out = 2 * FORCED_HIDDEN * FORCED_FFN, FORCED_FFN * FORCED_HIDDEN
    drawn_EV = uniform(seed, 2 * layer + 2, np.arange(experts), width_in + width_out)
    drawn_EV = ((drawn_EV - 0.5) * 12**0.5).to(device)
    w_in, w_out = drawn_EV.split([width_in, width_out], dim=1)
    return (
        w_in.reshape(experts, FORCED_HIDDEN, -1) * FORCED_HIDDEN**-0.5,
        w_out.reshape(experts, FORCED_FFN, -1) * FORCED_GAIN * FORCED_FFN**-0.5,
    )


def unsharded(
    x_NH: Tensor, ids_NK: Tensor, gates_NK: Tensor, w_in_E: Tensor, w_out_E: Tensor
) -> Tensor:
    """Compute every expert in one place, one after the other."""
    y_NH = torch.zeros_like(x_NH)
    order_P = torch.argsort(ids_NK.reshape(-1), stable=True)
    sizes = torch.bincount(ids_NK.reshape(-1) + 1, minlength=len(w_in_E) + 1).tolist()
    for expert, members in enumerate(order_P.split(sizes), start=-1):
        if expert >= 0 and len(members):
            token = torch.div(members, ids_NK.shape[1], rounding_mode="floor")
            done = swiglu(x_NH[token], w_in_E[expert], w_out_E[expert])
            y_NH.index_add_(0, token, done * gates_NK.reshape(-1)[members][:, None])
    return y_NH


def _normed(x_NH: Tensor) -> Tensor:
    """Keep the residual stream at size 1 per value."""
    return x_NH / x_NH.square().mean(dim=1, keepdim=True).sqrt().clamp(min=TINIEST)
