"""Two MoE layers of a plan on a host, and their gradients."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from planner.executor.direct import Standing
from planner.executor.host import Host, LocalHost, ProcessHost, tokens_of
from planner.executor.model.feed_forward import swiglu
from planner.executor.parallel.experts import copies_of
from planner.executor.placement import Homes, Placement
from planner.executor.stepping import Steps, finish
from planner.executor.world.groups import World
from planner.plan import PlacementPlan
from planner.workload.parts import TokenPart
from tests.unit.executor.placed import (
    layout_of,
    part_of,
    random_experts,
    random_slots,
)

E, K, L, H, F, T = 8, 3, 2, 6, 5, 30
Found = dict[str, Tensor]


def case(gpus: int, traffic: str, endpoint: str) -> tuple[Placement, TokenPart]:
    """A drawn plan with copies and empty slots; the last GPU is home to no token."""
    rng = np.random.default_rng(gpus)
    slots = np.stack([random_slots(E, gpus, E // gpus + 2, rng) for _ in range(L)])
    layout = layout_of([2 * g // gpus for g in range(gpus)])
    part = part_of(random_experts(L, T, K, E, rng), gpus - 1, rng)
    return Placement(
        plan=PlacementPlan(layer_numbers=(0, 1), slots_LGJ=slots),
        layout=layout,
        traffic=traffic,
        selection="even",
        endpoint=endpoint,
    ), part


def drawn() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Hidden states, gates, expert weights, and what weighs outputs in the loss."""
    draw = torch.Generator().manual_seed(3)
    shapes = [(T, H), (L, T, K), (L, E, H, 2 * F), (L, E, F, H), (T, H)]
    x, gates, w_in, w_out, weight = (torch.randn(s, generator=draw) for s in shapes)
    return x, gates.abs(), w_in / 2, w_out / 2, weight


def unsharded(part: TokenPart) -> Found:
    """Outputs and gradients by autograd, token by token: each layer adds to x."""
    x_TH, gates, w_in, w_out, weight = drawn()
    leaves = [t.requires_grad_() for t in (x_TH, gates, w_in, w_out)]
    out = x_TH
    for layer in range(L):
        rows = []
        for token, row in enumerate(out):
            for k, expert in enumerate(part.experts_LTK[layer, token].tolist()):
                if expert >= 0:
                    done = swiglu(out[token], w_in[layer, expert], w_out[layer, expert])
                    row = row + gates[layer, token, k] * done
            rows.append(row)
        out = torch.stack(rows)
    found = torch.autograd.grad((out * weight).sum(), leaves)
    names = ("x", "gates", "w_in", "w_out")
    return {"out": out.detach(), **dict(zip(names, found, strict=True))}


def here(world: World | None, gpus: int, traffic: str, endpoint: str) -> Found:
    """Outputs and gradients of the ranks hosted here; rows of other ranks are 0.

    Those of experts lie by slot, all hosted slots of both layers, with the expert.
    """
    placement, part = case(gpus, traffic, endpoint)
    host: Host = (
        LocalHost(gpus) if world is None else ProcessHost(world.group, world.device)
    )
    group = None if world is None else world.group
    x_TH, gates, w_in, w_out, weight = drawn()
    make = placement.direct if placement.chained else placement.experts
    placed: list[Any] = [make(n, (w_in[n], w_out[n]), swiglu, host) for n in range(L)]
    slots = [layer.bank.trainable() for layer in placed]
    own_N = torch.from_numpy(tokens_of(host, part.source_T))
    x_TH.requires_grad_()
    gates.requires_grad_()
    run = _chained if placement.chained else _round_trips
    out_NH = finish(run(placed, placement, part, host, x_TH, gates, own_N))
    (out_NH * weight[own_N]).sum().backward()
    for n, layer in enumerate(placed):
        by_slot = [_gradient(weights) for weights in slots[n]]
        for weights, gradient in zip(slots[n], by_slot, strict=True):
            weights.grad = gradient
        if group is not None:
            for copies in copies_of(layer.bank, placement, n, group):
                copies.add_up()
    out = torch.zeros(T, H).index_copy(0, own_N, out_NH.detach())
    grads = [torch.stack([_gradient(s[i]) for s in slots]) for i in range(2)]
    experts = torch.stack([layer.bank.expert_P for layer in placed])
    return {
        "out": out,
        "x": _gradient(x_TH),
        "gates": _gradient(gates),
        "w_in": grads[0],
        "w_out": grads[1],
        "expert": experts,
    }


def _gradient(of: Tensor) -> Tensor:
    return torch.zeros_like(of) if of.grad is None else of.grad


def _round_trips(
    placed: list[Any],
    placement: Placement,
    part: TokenPart,
    host: Host,
    x_TH: Tensor,
    gates: Tensor,
    own_N: Tensor,
) -> Steps[Tensor]:
    homes, out = Homes(part, host), x_TH[own_N]
    for n, layer in enumerate(placed):
        ids_NK = torch.from_numpy(part.experts_LTK[n].astype(np.int64))[own_N]
        slots_NK = homes.slots(placement.choice(n, host), ids_NK, own_N)
        out = out + (
            yield from layer.steps(
                out, gates[n][own_N], slots_NK, homes.source_T[own_N]
            )
        )
    return out


def _chained(
    placed: list[Any],
    placement: Placement,
    part: TokenPart,
    host: Host,
    x_TH: Tensor,
    gates: Tensor,
    own_N: Tensor,
) -> Steps[Tensor]:
    homes = Homes(part, host)
    standing = Standing(
        x_NH=x_TH[own_N],
        token_N=own_N,
        rank_N=homes.source_T[own_N],
        carried=(gates[:, own_N].transpose(0, 1),),
    )
    for n, layer in enumerate(placed):
        ids_TK = torch.from_numpy(part.experts_LTK[n].astype(np.int64))
        slots_NK = homes.slots(
            placement.choice(n, host),
            ids_TK[standing.token_N],
            standing.token_N,
            standing.rank_N,
        )
        moved, y_NH = yield from layer.steps(
            standing, standing.carried[0][:, n], slots_NK
        )
        standing = Standing(
            x_NH=moved.x_NH + y_NH,
            token_N=moved.token_N,
            rank_N=moved.rank_N,
            carried=moved.carried,
        )
    home = yield from placed[-1].home(standing, homes.source_T[standing.token_N])
    back = torch.empty(T, dtype=torch.int64)
    back[home.token_N] = torch.arange(len(own_N))
    return home.x_NH[back[own_N]]
