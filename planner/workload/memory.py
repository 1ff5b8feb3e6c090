"""Memory of every GPU: the terms of ``memory_terms`` added up, beside its limit."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from planner.arrays import BoolArray, IntArray
from planner.errors import InfeasibleError, UsageError
from planner.workload.memory_terms import (
    attention_bytes,
    copies_buffer_bytes,
    dedup_buffer_bytes,
    dense_bytes,
    embedding_bytes,
    kv_token_bytes,
    norm_bytes,
    router_bytes,
    shared_bytes,
)
from planner.workload.model_spec import MoEModelSpec

DEFAULT_KV_TOKENS = 65536
DEFAULT_BATCH_TOKENS = 4096
_MOST_BYTES = 2**58


class GpuMemory(Protocol):
    """What memory needs of a :class:`planner.topology.graph.Gpu`."""

    @property
    def id(self) -> str:
        """Name of the node."""

    @property
    def memory_bytes(self) -> int:
        """Bytes the GPU has."""

    @property
    def reserved_bytes(self) -> int:
        """Bytes that are not the plan's to use."""


class Cluster(Protocol):
    """What memory needs of a :class:`planner.topology.graph.ClusterTopology`."""

    @property
    def gpus(self) -> Sequence[GpuMemory]:
        """Plan GPUs in EP order."""

    @property
    def domains(self) -> Sequence[Sequence[int]]:
        """GPUs of each scale-up domain."""


class Degrees(Protocol):
    """What memory needs of a :class:`planner.layout.ParallelLayout`."""

    @property
    def tp(self) -> int:
        """GPUs per attention group."""

    @property
    def ep(self) -> int:
        """GPUs per EP set."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryBill:
    """What each GPU holds, term by term.

    Attributes
    ----------
    gpus
        Names of the GPUs, in EP order.
    terms
        Bytes [G] by name, in the order they are printed.
    limit_G
        What each GPU has: its memory, or the given fraction of it.
    kv_tokens
        Tokens of KV cache per DP rank: as given, or what ``mem_fraction`` leaves.
    kv_fills
        Whether the KV cache is what ``mem_fraction`` leaves.
    least_slots
        Slots per GPU that still hold every expert once.
    kv_token_bytes, batch_token_bytes, slot_bytes
        Bytes that one KV token, one batch token and one slot in every layer cost.
    """

    gpus: tuple[str, ...]
    terms: dict[str, IntArray]
    limit_G: IntArray
    kv_tokens: int
    kv_fills: bool
    batch_tokens: int
    slots_per_gpu: int
    least_slots: int
    kv_token_bytes: int
    batch_token_bytes: int
    slot_bytes: int

    @property
    def total_G(self) -> IntArray:
        """Bytes each GPU needs."""
        return _sum(self.terms)


def memory_bill(
    model: MoEModelSpec,
    cluster: Cluster,
    layout: Degrees,
    *,
    slots_per_gpu: int,
    traffic: str,
    messages: tuple[int, int],
    kv_tokens: int | None = None,
    mem_fraction: float | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    single: bool = False,
    attends_G: BoolArray | None = None,
) -> MemoryBill:
    """Add up the memory of every GPU under ``slots_per_gpu`` slots in every layer.

    All terms but experts and buffers serve the tokens of a DP rank: a GPU in no
    attention group has none of them.

    Parameters
    ----------
    messages
        Bytes of one dispatch and one combine transfer (rule 22).
    kv_tokens
        Tokens of KV cache per DP rank; None means 65536, or with ``mem_fraction``
        as many as fit on the fullest GPU.
    mem_fraction
        Share of each GPU's whole memory to fill, reserved bytes included.
    batch_tokens
        Tokens per DP rank the buffers are made for.
    single
        Whether the one slot of a GPU is that of all layers together.
    attends_G
        Which GPUs are in an attention group; None: all.

    Raises
    ------
    UsageError
        For both ``kv_tokens`` and ``mem_fraction``, or values out of range.
    InfeasibleError
        If a term is beyond any GPU.
    """
    _check_knobs(kv_tokens, mem_fraction, batch_tokens)
    gpus = cluster.gpus
    slots = model.experts if single else layout.ep * slots_per_gpu
    per_batch_token = _batch_token_bytes(cluster, traffic, slots, messages)
    slot = (1 if single else len(model.moe_layers)) * model.expert_bytes
    everywhere = {
        "buffers": batch_tokens * per_batch_token,
        "experts": slots_per_gpu * slot,
    }
    own = _own_terms(model, layout.tp)
    _check_countable(own | everywhere)
    attends_G = np.ones(len(gpus), dtype=np.bool_) if attends_G is None else attends_G
    terms = {"reserved": np.array([g.reserved_bytes for g in gpus], dtype=np.int64)}
    terms |= {name: np.where(attends_G, count, 0) for name, count in own.items()}
    terms |= {name: np.full(len(gpus), count) for name, count in everywhere.items()}
    limit_G = _limits(cluster, mem_fraction)
    per_kv_token = kv_token_bytes(model, layout.tp)
    if mem_fraction is not None:
        left_G = (limit_G - _sum(terms))[attends_G]
        # A model that cannot hold one token serves nobody.
        kv_tokens = max(1, int(left_G.min()) // per_kv_token)
    elif kv_tokens is None:
        kv_tokens = DEFAULT_KV_TOKENS
    cached = {"kv_cache": kv_tokens * per_kv_token}
    _check_countable(cached)
    terms["kv_cache"] = np.where(attends_G, cached["kv_cache"], 0)
    return MemoryBill(
        gpus=tuple(gpu.id for gpu in gpus),
        terms=terms,
        limit_G=limit_G,
        kv_tokens=kv_tokens,
        kv_fills=mem_fraction is not None,
        batch_tokens=batch_tokens,
        slots_per_gpu=slots_per_gpu,
        least_slots=1 if single else -(-model.experts // layout.ep),
        kv_token_bytes=per_kv_token,
        batch_token_bytes=per_batch_token,
        slot_bytes=slot,
    )


def _batch_token_bytes(
    cluster: Cluster, traffic: str, slots: int, messages: tuple[int, int]
) -> int:
    """Return the bytes of buffers per token of a batch."""
    if traffic in ("copies", "direct"):
        return copies_buffer_bytes(1, slots, messages)
    return dedup_buffer_bytes(1, len(cluster.domains), messages)


def _limits(cluster: Cluster, mem_fraction: float | None) -> IntArray:
    """Return the bytes of each GPU that may be filled [G]."""
    share = Fraction(1) if mem_fraction is None else Fraction(str(mem_fraction))
    bytes_G = [int(gpu.memory_bytes * share) for gpu in cluster.gpus]
    return np.array(bytes_G, dtype=np.int64)


def _own_terms(model: MoEModelSpec, tp: int) -> dict[str, int]:
    """Return the weights that serve the tokens of a GPU's own DP rank."""
    return {
        "attention": attention_bytes(model, tp),
        "dense": dense_bytes(model, tp),
        "shared_experts": shared_bytes(model),
        "router": router_bytes(model),
        "norms": norm_bytes(model),
        "embeddings": embedding_bytes(model),
    }


def _check_knobs(
    kv_tokens: int | None, mem_fraction: float | None, batch_tokens: int
) -> None:
    if kv_tokens is not None and mem_fraction is not None:
        raise UsageError("give --kv-tokens or --mem-fraction, not both")
    if kv_tokens is not None and kv_tokens < 0:
        raise UsageError(f"--kv-tokens {kv_tokens} must be >= 0")
    if mem_fraction is not None and not 0 < mem_fraction <= 1:
        raise UsageError(f"--mem-fraction {mem_fraction} must be > 0 and <= 1")
    if batch_tokens < 1:
        raise UsageError(f"--batch-tokens {batch_tokens} must be >= 1")


def _check_countable(terms: dict[str, int]) -> None:
    """Refuse what no GPU could hold before int64 fails to count it."""
    for name, count in terms.items():
        if count > _MOST_BYTES:
            raise InfeasibleError(
                f"memory too small: {name} alone takes {count} bytes on every GPU; "
                "look for a mistyped model field, --kv-tokens or --batch-tokens"
            )


def _sum(terms: dict[str, IntArray]) -> IntArray:
    total: IntArray = np.sum(list(terms.values()), axis=0, dtype=np.int64)
    return total
