"""What the checks and timings of a device share: small plans, tokens and clocks."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from planner.arrays import IntArray
from planner.executor.counter import count
from planner.executor.placement import Placement
from planner.executor.precision.named import precision_named
from planner.executor.result import Moved
from planner.executor.world.nursery import Nursery
from planner.executor.world.standing import StandingWorld
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.workload.model_spec import Attention, MoEModelSpec
from planner.workload.parts import TokenPart

ENDPOINTS = {"dedup_domain": "dest_forward", "dedup_gpu": "pxn"}
TRAFFIC = ("copies", "dedup_gpu", "dedup_domain", "direct")
SELECTIONS = ("nearest", "even", "weighted")
EXPERTS, TOP_K = 16, 4


class Wrong(Exception):
    """A check found something else than it should."""


class NotHere(Exception):
    """The machine lacks what a row needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where everything runs, at which sizes; ``nursery`` is where ranks come from."""

    torch: torch.device
    small: bool = False
    nursery: Nursery | None = None

    def world(self, ranks: int) -> StandingWorld:
        """Return ranks of this machine that wait for work."""
        return StandingWorld(ranks, nursery=self.nursery, device=self.torch.type)

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.torch.type == "cuda"

    def ready(self) -> None:
        """Return when all that was asked for is done."""
        if self.is_cuda:
            torch.cuda.synchronize(self.torch)

    def seconds(self, work: Callable[[], Any], repeats: int = 5) -> float:
        """Return the median of some runs after one to warm up."""
        found = []
        for _ in range(repeats + 1):
            self.ready()
            start = time.perf_counter()
            work()
            self.ready()
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Tokens, and a plan for them on some ranks."""

    placement: Placement
    part: TokenPart
    spec: MoEModelSpec

    def counted(self) -> Moved:
        """Count what should move, without tensors."""
        return count(
            self.placement.plan,
            self.part,
            layout=self.placement.layout,
            model_spec=self.spec,
            traffic=self.placement.traffic,
            selection=self.placement.selection,
            endpoint=self.placement.endpoint,
        )


def job(
    traffic: str,
    selection: str,
    *,
    ranks: int = 8,
    tokens: int = 2000,
    layers: int = 2,
    precision: str = "fp32",
) -> Job:
    """Draw tokens and a plan in which half of the experts have a copy."""
    rng = np.random.default_rng(5)
    placement = Placement(
        plan=plan_of(ranks, layers, rng),
        layout=layout_of(ranks),
        traffic=traffic,
        selection=selection,
        endpoint=ENDPOINTS.get(traffic, "local_nic"),
        precision=precision_named(precision),
    )
    ids = rng.random((layers, tokens, EXPERTS)).argsort(axis=2)[:, :, :TOP_K]
    return Job(placement=placement, part=part_of(ids, ranks, rng), spec=spec_of(layers))


def plan_of(ranks: int, layers: int, rng: np.random.Generator) -> PlacementPlan:
    """Deal all experts out to the ranks, then half of them again to other ranks."""
    each = EXPERTS // ranks
    slots_LGJ = np.full((layers, ranks, each + max(1, each // 2)), -1, dtype=np.int16)
    split = {}
    for layer in range(layers):
        dealt = rng.permutation(EXPERTS).reshape(ranks, each)
        slots_LGJ[layer, :, :each] = dealt
        if ranks > 1:
            more = np.roll(dealt, 1, axis=0)[:, : max(1, each // 2)]
            slots_LGJ[layer, :, each:] = more
        for expert in range(EXPERTS):
            copies = int((slots_LGJ[layer] == expert).sum())
            weights = rng.integers(1, 4, copies)
            split[layer, expert] = {"*": tuple(int(weight) for weight in weights)}
    return PlacementPlan(
        layer_numbers=tuple(range(layers)), slots_LGJ=slots_LGJ, split=split
    )


def layout_of(ranks: int) -> ParallelLayout:
    """Two domains, one DP rank per GPU, one EP set."""
    return ParallelLayout(
        domain_G=np.arange(ranks) // max(1, ranks // 2),
        ep=ranks,
        attention_groups=tuple((rank,) for rank in range(ranks)),
    )


def part_of(ids_LTK: Any, ranks: int, rng: np.random.Generator) -> TokenPart:
    """Tokens of random ranks; ordinals number the tokens of each."""
    tokens = ids_LTK.shape[1]
    source_T: IntArray = rng.integers(ranks, size=tokens)
    ordinal_T = np.empty(tokens, dtype=np.int64)
    for rank in range(ranks):
        own = np.flatnonzero(source_T == rank)
        ordinal_T[own] = np.arange(own.size)
    return TokenPart(
        experts_LTK=ids_LTK.astype(np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=ordinal_T,
        row_T=np.arange(tokens),
    )


def spec_of(layers: int) -> MoEModelSpec:
    """Return a small model's dimensions."""
    return MoEModelSpec(
        name="small",
        layers=layers,
        moe_layers=tuple(range(layers)),
        experts=EXPERTS,
        top_k=TOP_K,
        hidden=16,
        expert_ffn=16,
        shared_ffn=16,
        dense_ffn=16,
        ffn_matrices=3,
        attention=Attention(heads=2, kv_heads=2, head_dim=8),
        vocab=64,
        precision="bf16",
    )


def differing(found: Moved, wanted: Moved) -> list[str]:
    """Return which counts are not the same."""
    names = ("dispatch_LGG", "combine_LGG", "gpu_pairs_LG", "slot_bytes_G")
    return [
        name
        for name in names
        if not np.array_equal(getattr(found, name), getattr(wanted, name))
    ]
