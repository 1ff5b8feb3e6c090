"""What must be right on a device, one function per row of the table."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.device_jobs import (
    EXPERTS,
    SELECTIONS,
    TOP_K,
    TRAFFIC,
    Device,
    Wrong,
    differing,
    job,
    layout_of,
    part_of,
    plan_of,
)
from planner.executor.forced import replay_forced, seeded_experts, unsharded
from planner.executor.host import LocalHost, ProcessHost
from planner.executor.model.attention.latent import LatentAttention
from planner.executor.model.decoder import Decoder
from planner.executor.model.feed_forward import swiglu
from planner.executor.model.sized import decoder_config
from planner.executor.placement import Placement, relative_error
from planner.executor.precision.tolerance import TOLERANCES
from planner.executor.result import Moved
from planner.executor.stepping import finish
from planner.executor.text.run import replay_text
from planner.plan import PlacementPlan
from planner.workload.presets import load_model

RANKS = 8
LENGTHS = (5, 31, 12, 64, 20)


def counts(device: Device, traffic: str) -> str:
    """Hold tensors moved between virtual ranks against the counter."""
    worst = 0.0
    for selection in SELECTIONS:
        drawn = job(traffic, selection, ranks=RANKS)
        moved = replay_forced(
            LocalHost(RANKS, device.torch),
            drawn.placement,
            drawn.part,
            model_spec=drawn.spec,
        )
        wrong = differing(moved, drawn.counted())
        if wrong:
            raise Wrong(f"{selection}: {', '.join(wrong)} differ from the counter's")
        worst = max(worst, _error(moved, "fp32"))
    return f"equal, {len(SELECTIONS)} selections; outputs within {worst:.1e}"


def outputs(device: Device, precision: str) -> str:
    """Hold outputs through placed experts against the unsharded model's."""
    drawn = job("dedup_domain", "even", ranks=RANKS, precision=precision)
    moved = replay_forced(
        LocalHost(RANKS, device.torch),
        drawn.placement,
        drawn.part,
        model_spec=drawn.spec,
    )
    error, allowed = _error(moved, precision), TOLERANCES[precision].outputs
    return f"within {error:.1e}; {allowed:g} allowed"


def text(device: Device, name: str) -> str:
    """Let a model read and route a text, and hold its logits."""
    model, rng = _model(device, name), np.random.default_rng(9)
    seq_ids = rng.permutation(np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    moe = model.config.moe_layers
    ids = np.full((len(moe), seq_ids.size, model.config.top_k), -1)
    experts = model.config.experts
    slots_LGJ = np.stack(
        [rng.permutation(experts).reshape(RANKS, -1) for _ in moe]
    ).astype(np.int16)
    moved = replay_text(
        LocalHost(RANKS, device.torch),
        Placement(
            plan=PlacementPlan(layer_numbers=moe, slots_LGJ=slots_LGJ),
            layout=layout_of(RANKS),
            traffic="dedup_domain",
            selection="nearest",
            endpoint="dest_forward",
        ),
        part_of(ids, RANKS, rng),
        model=model,
        model_spec=load_model(name),
        token_ids=rng.integers(model.config.vocab, size=seq_ids.size),
        seq_ids=seq_ids,
    )
    transfers = int(moved.dispatch_LGG.sum())
    return f"logits within {_error(moved, 'fp32'):.1e}; {transfers:,} transfers"


def gradients(device: Device) -> str:
    """Hold gradients through placed experts against those of unsharded ones."""
    rng = np.random.default_rng(6)
    torch.manual_seed(6)
    both = seeded_experts(EXPERTS, 3, 0, device.torch)
    x, gates = torch.randn(500, 16), torch.rand(500, TOP_K)
    ids = torch.rand(500, EXPERTS).argsort(dim=1)[:, :TOP_K].to(device.torch)
    rank = (torch.arange(500) % RANKS).to(device.torch)
    pull = torch.randn(500, 16).to(device.torch)

    def of(compute: Any) -> list[Tensor]:
        own = [each.clone().to(device.torch).requires_grad_() for each in (x, gates)]
        (compute(*own) * pull).sum().backward()
        return [_gradient(each) for each in own]

    wanted = of(lambda x, gates: unsharded(x, ids, gates, *both))
    host, worst = LocalHost(RANKS, device.torch), 0.0
    for traffic in TRAFFIC[:3]:
        placement = Placement(
            plan=plan_of(RANKS, 1, rng),
            layout=layout_of(RANKS),
            traffic=traffic,
            selection="nearest",
            endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
        )
        placed = placement.experts(0, both, swiglu, host)
        slots = placement.choice(0, host).of(ids, rank, rank, rank)
        run = partial(_placed, placed, slots, rank)
        for found, right in zip(of(run), wanted, strict=True):
            worst = max(worst, relative_error(found, right))
    if not worst <= 1e-5:
        raise Wrong(f"gradients differ by {worst:.1e}, relative; 1e-5 allowed")
    return f"{len(TRAFFIC[:3])} modes, within {worst:.1e}"


@torch.no_grad()
def latent_forms(device: Device) -> str:
    """Hold the absorbed form of MLA against the naive one."""
    model = _model(device, "deepseek-v3")
    tokens = torch.randint(model.config.vocab, (4, 48)).to(device.torch)
    found = []
    for absorbed in (False, True):
        for block in model.blocks:
            assert isinstance(block.attn, LatentAttention)
            block.attn.absorbed = absorbed
        found.append(model(tokens).flatten(0, 1))
    error = relative_error(found[1], found[0])
    if not error <= 1e-5:
        raise Wrong(f"logits differ by {error:.1e}, relative; 1e-5 allowed")
    return f"logits within {error:.1e}"


def world(device: Device) -> str:
    """Replay between processes, one per GPU (two on the CPU)."""
    ranks = torch.cuda.device_count() if device.is_cuda else 2
    ranks = max(size for size in (1, 2, 4, 8) if size <= ranks)
    with device.world(ranks) as standing:
        for traffic in TRAFFIC:
            drawn = job(traffic, "even", ranks=ranks)
            for moved in standing.run(in_a_rank, traffic, ranks):
                wrong = differing(moved, drawn.counted())
                if wrong:
                    raise Wrong(f"{traffic}: {', '.join(wrong)} differ")
                _error(moved, "fp32")
    kind = "NCCL" if device.is_cuda else "gloo"
    return f"{ranks} {kind} rank{'s' * (ranks > 1)}, {len(TRAFFIC)} modes equal"


def in_a_rank(world: Any, traffic: str, ranks: int) -> Moved:
    """Be one rank of the check above."""
    drawn = job(traffic, "even", ranks=ranks)
    host = ProcessHost(world.group, world.device)
    moved: Moved = replay_forced(
        host, drawn.placement, drawn.part, model_spec=drawn.spec
    )
    return moved


CHECKS = [
    *((f"counts, {name}", partial(counts, traffic=name)) for name in TRAFFIC),
    *((f"outputs in {name}", partial(outputs, precision=name)) for name in TOLERANCES),
    ("real routing, MLA (deepseek-v3)", partial(text, name="deepseek-v3")),
    ("real routing, GQA (mixtral-8x7b)", partial(text, name="mixtral-8x7b")),
    ("gradients", gradients),
    ("MLA absorbed = naive", latent_forms),
    ("ranks as processes", world),
]


def _placed(
    placed: Any, slots: Tensor, rank: Tensor, x: Tensor, gates: Tensor
) -> Tensor:
    found: Tensor = finish(placed.steps(x, gates, slots, rank))
    return found


def _gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


def _model(device: Device, name: str) -> Decoder:
    torch.manual_seed(4)
    config = decoder_config(load_model(name), hidden=64, layers=5, context=128)
    return Decoder(config).eval().to(device.torch)


def _error(moved: Moved, precision: str) -> float:
    """Return how far outputs are off; refuse more than the precision allows."""
    assert moved.outputs is not None
    allowed = TOLERANCES[precision]
    for what, error, most in (
        ("outputs", moved.outputs.final_error, allowed.outputs),
        ("outputs of experts", moved.outputs.layer_error, allowed.layers),
    ):
        if not error <= most:
            raise Wrong(f"{what} differ by {error:.1e}, relative; {most:g} allowed")
    return moved.outputs.final_error
