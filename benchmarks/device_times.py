"""What is fast on a device, one function per row of the table."""

import statistics
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks import overlap as two_ranks
from benchmarks.device_checks import RANKS
from benchmarks.device_jobs import Device, NotHere, Wrong, job, layout_of, plan_of
from planner.executor.forced import replay_forced
from planner.executor.grouped import can_group, product_of
from planner.executor.host import LocalHost
from planner.executor.model.feed_forward import swiglu
from planner.executor.placement import Placement
from planner.executor.precision.fp32 import Fp32
from planner.executor.slots import SlotBank
from planner.executor.stepping import Steps, interleave
from planner.executor.streams import Streams
from planner.executor.timeline.record import COMPUTE, NETWORK, overlap

SLACK = 1.05
"""Allocators round up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of one layer's experts and its rows."""

    experts: int
    hidden: int
    ffn: int
    rows: int

    @classmethod
    def of(cls, device: Device) -> "Shape":
        """Experts of one GPU of DeepSeek-V3's on a GPU, tiny-moe's on the CPU."""
        if device.is_cuda and not device.small:
            return cls(experts=32, hidden=7168, ffn=2048, rows=32768)
        return cls(experts=64, hidden=96, ffn=24, rows=400 if device.small else 8192)

    def weights(self, device: Device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Draw stacked weights."""
        options: dict[str, Any] = {"device": device.torch, "dtype": dtype}
        w_in = torch.randn(self.experts, self.hidden, 2 * self.ffn, **options)
        w_out = torch.randn(self.experts, self.ffn, self.hidden, **options)
        return w_in * self.hidden**-0.5, w_out * self.ffn**-0.5

    @property
    def flops(self) -> int:
        """Multiplications and additions of all rows."""
        return 2 * self.rows * 3 * self.hidden * self.ffn


@torch.no_grad()
def grouped(device: Device) -> str:
    """Time one grouped product per matrix against a product per expert."""
    dtype = torch.bfloat16 if device.is_cuda else torch.float32
    shape = Shape.of(device)
    w_in, w_out = shape.weights(device, dtype)
    x = torch.randn(shape.rows, shape.hidden, device=device.torch, dtype=dtype)
    expert = torch.arange(shape.rows, device=device.torch) % shape.experts
    sizes_P = torch.bincount(expert, minlength=shape.experts)
    sizes = sizes_P.tolist()
    if not can_group(x, (w_in, w_out)):
        raise NotHere(f"torch {torch.__version__} has no grouped GEMM for this device")

    def loop() -> Tensor:
        parts = zip(x.split(sizes), w_in, w_out, strict=True)
        return torch.cat([swiglu(rows, first, last) for rows, first, last in parts])

    def together() -> Tensor:
        return swiglu(x, w_in, w_out, product_of(sizes_P))

    wanted, found = loop().float(), together().float()
    error = float((wanted - found).abs().max() / wanted.abs().max())
    if not error <= (2e-2 if device.is_cuda else 1e-5):
        raise Wrong(f"outputs differ by {error:.1e}, relative")
    slow, fast = device.seconds(loop), device.seconds(together)
    rate = 1e-12 * shape.flops / fast
    return f"{slow / fast:.2f} x a loop, {rate:.3g} TFLOP/s, within {error:.1e}"


def beside(device: Device) -> str:
    """Measure how much two batches on their way at a time hide of each other."""
    return _streams(device) if device.is_cuda else _two_ranks(device)


def _two_ranks(device: Device) -> str:
    """Two gloo ranks with a delay in their transport, as benchmarks/overlap.py."""
    shares = []
    with device.world(two_ranks.RANKS) as world:
        world.run(two_ranks.run, 0.0, 1)
        calm = min(
            overlap(run.recorder.intervals).compute_s
            for run in world.run(two_ranks.run, 0.0, 1)
        )
        delay_s = calm / (2 * two_ranks.LAYERS * two_ranks.BATCHES)
        for _ in range(1 if device.small else 5):
            alone = world.run(two_ranks.run, delay_s, 1)
            shares.append(two_ranks.hidden(alone, world.run(two_ranks.run, delay_s, 2)))
    share = statistics.median(shares)
    return f"{share:.0%} of the smaller of computing and travelling hidden"


@torch.no_grad()
def _streams(device: Device) -> str:
    """Two streams on one GPU; the lanes of the record stand for them."""
    work = _Layers(device)
    seconds, share = {}, 0.0
    for at_once in (1, 2, 1, 2):
        device.ready()
        streams = Streams(device.torch, at_once, timed=True)
        interleave(map(work.batch, range(6)), at_once, lane=streams.lane)
        streams.close()
        found = streams.intervals()
        seconds[at_once] = max(each.end_s for each in found)
        if at_once == 2:
            share = overlap(
                replace(each, lane=(COMPUTE, NETWORK)[each.batch % 2]) for each in found
            ).hidden
    ratio = seconds[1] / seconds[2]
    return f"both streams at work {share:.0%} of the time, {ratio:.2f} x one stream"


class _Layers:
    """Batches through placed experts on virtual ranks."""

    def __init__(self, device: Device) -> None:
        wide, self.tokens, layers = (256, 1024, 2) if device.small else (2048, 8192, 4)
        rng, host = np.random.default_rng(3), LocalHost(RANKS, device.torch)
        placement = Placement(
            plan=plan_of(RANKS, layers, rng),
            layout=layout_of(RANKS),
            traffic="copies",
            selection="nearest",
            endpoint="local_nic",
        )
        shape = Shape(experts=16, hidden=wide, ffn=wide, rows=0)
        both = shape.weights(device, torch.bfloat16)
        self.placed = [
            placement.experts(layer, both, swiglu, host) for layer in range(layers)
        ]
        where = device.torch
        self.x = torch.randn(self.tokens, wide, device=where, dtype=torch.bfloat16)
        ids = torch.rand(self.tokens, 16, device=where).topk(4, dim=1).indices
        self.rank = torch.arange(self.tokens, device=where) % RANKS
        choice = placement.choice(0, host)
        self.slots = choice.of(ids, self.rank, self.rank, self.rank)
        self.gates = torch.full_like(self.slots, 0.25, dtype=torch.bfloat16)

    def batch(self, number: int) -> Steps[Tensor]:
        """Send one batch through all layers."""
        x = self.x
        for placed in self.placed:
            x = x + (yield from placed.steps(x, self.gates, self.slots, self.rank))
        return x


def exchange(device: Device) -> str:
    """Time an all-to-all between the ranks of a world."""
    ranks = torch.cuda.device_count() if device.is_cuda else 2
    size = 2**20 if device.small or not device.is_cuda else 2**28
    with device.world(ranks) as world:
        slowest = max(world.run(exchanged, size, device.small))
    rate = 1e-9 * size / slowest
    return f"{ranks} ranks, {size / 2**20:.0f} MiB each: {rate:.2f} GB/s"


def exchanged(world: Any, size: int, small: bool) -> float:
    """Be one rank of the exchange above; return its seconds."""
    sent = torch.zeros(size // world.size * world.size, dtype=torch.uint8).to(
        world.device
    )
    received = torch.empty_like(sent)

    def once() -> None:
        dist.all_to_all_single(received, sent, group=world.group)

    device = Device(torch=world.device, small=small)
    return device.seconds(once, repeats=2 if small else 10)


def replayed(device: Device) -> str:
    """Time a whole replay on virtual ranks, comparisons included."""
    tokens = 1000 if device.small else 20000
    drawn = job("dedup_domain", "even", ranks=RANKS, tokens=tokens)
    host = LocalHost(RANKS, device.torch)

    def once() -> None:
        replay_forced(host, drawn.placement, drawn.part, model_spec=drawn.spec)

    seconds = device.seconds(once, repeats=1 if device.small else 3)
    return f"{RANKS} virtual ranks, {tokens / seconds:,.0f} tokens/s"


def memory(device: Device) -> str:
    """Hold the bytes of a rank's slots against the plan's promise."""
    shape = Shape.of(device)
    slots_GJ = np.arange(shape.experts, dtype=np.int16).reshape(1, -1)
    both = shape.weights(device, torch.bfloat16)
    promised = shape.experts * 3 * shape.hidden * shape.ffn * 2
    device.ready()
    if device.is_cuda:
        torch.cuda.reset_peak_memory_stats(device.torch)
    before = torch.cuda.memory_allocated(device.torch) if device.is_cuda else 0
    bank = SlotBank(slots_GJ, both, range(1), swiglu, Fp32())
    if device.is_cuda:
        held = torch.cuda.memory_allocated(device.torch) - before
        peak = torch.cuda.max_memory_allocated(device.torch) - before
    else:
        held = peak = int(bank.bytes_G.sum())
    if not promised <= held <= SLACK * promised:
        raise Wrong(f"{held:,} bytes held, {promised:,} promised")
    ratio = peak / promised
    return f"{held / 2**20:,.1f} MiB as promised; {ratio:.2f} x while they are laid out"


TIMES = [
    ("grouped GEMM", grouped),
    ("batches beside each other", beside),
    ("all-to-all", exchange),
    ("replay", replayed),
    ("memory of slots", memory),
]
