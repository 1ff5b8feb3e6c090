"""Memory of a GPU: every term of design §5, one small function each.

Weights stand at the model's precision. Router, norms, embeddings and the KV cache
stay at two bytes or more: no engine keeps them in eight bits unasked. What
attention shares between heads (MLA's down-projections and its latent cache) is
held whole by every GPU of an attention group, as engines do; the rest of attention
and the dense layers is divided over the group. Scales of fp8 weights (4 bytes per
128 x 128 block, 0.02 %) are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from planner.arrays import IntArray
from planner.errors import InfeasibleError, UsageError
from planner.workload.model_spec import BYTES_PER_VALUE, MoEModelSpec

DEFAULT_KV_TOKENS = 65536
DEFAULT_BATCH_TOKENS = 4096
ACTIVATION_BYTES = 2


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
    kv_token_bytes, batch_token_bytes, slot_bytes
        Bytes that one KV token, one batch token and one slot in every layer cost.
    """

    gpus: tuple[str, ...]
    terms: dict[str, IntArray]
    limit_G: IntArray
    kv_tokens: int
    batch_tokens: int
    slots_per_gpu: int
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
) -> MemoryBill:
    """Add up the memory of every GPU under ``slots_per_gpu`` slots in every layer.

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

    Raises
    ------
    UsageError
        For both ``kv_tokens`` and ``mem_fraction``, or values out of range.
    """
    _check_knobs(kv_tokens, mem_fraction, batch_tokens)
    gpus = cluster.gpus
    slots = layout.ep * slots_per_gpu
    per_batch_token = (
        copies_buffer_bytes(1, slots, messages)
        if traffic == "copies"
        else dedup_buffer_bytes(1, len(cluster.domains), messages)
    )
    slot = len(model.moe_layers) * model.expert_bytes
    same = {
        "attention": attention_bytes(model, layout.tp),
        "dense": dense_bytes(model, layout.tp),
        "shared_experts": shared_bytes(model),
        "router": router_bytes(model),
        "norms": norm_bytes(model),
        "embeddings": embedding_bytes(model),
        "buffers": batch_tokens * per_batch_token,
        "experts": slots_per_gpu * slot,
    }
    terms = {"reserved": np.array([g.reserved_bytes for g in gpus], dtype=np.int64)}
    terms |= {name: np.full(len(gpus), count) for name, count in same.items()}
    share = Fraction(1) if mem_fraction is None else Fraction(str(mem_fraction))
    limit_G = np.array([int(g.memory_bytes * share) for g in gpus], dtype=np.int64)
    per_kv_token = kv_token_bytes(model, layout.tp)
    if mem_fraction is not None:
        left_G = limit_G - _sum(terms)
        # A model that cannot hold one token serves nobody.
        kv_tokens = max(1, int(left_G.min()) // per_kv_token)
    elif kv_tokens is None:
        kv_tokens = DEFAULT_KV_TOKENS
    terms["kv_cache"] = np.full(len(gpus), kv_tokens * per_kv_token)
    return MemoryBill(
        gpus=tuple(gpu.id for gpu in gpus),
        terms=terms,
        limit_G=limit_G,
        kv_tokens=kv_tokens,
        batch_tokens=batch_tokens,
        slots_per_gpu=slots_per_gpu,
        kv_token_bytes=per_kv_token,
        batch_token_bytes=per_batch_token,
        slot_bytes=slot,
    )


def check_memory(bill: MemoryBill) -> None:
    """Refuse a bill that a GPU cannot pay.

    Raises
    ------
    InfeasibleError
        With the GPU that misses most, by how many bytes, what holds most, and each
        knob that alone would make it fit.
    """
    over_G = bill.total_G - bill.limit_G
    worst = int(over_G.argmax())
    over = int(over_G[worst])
    if over <= 0:
        return
    needs, has = int(bill.total_G[worst]), int(bill.limit_G[worst])
    largest = sorted(bill.terms, key=lambda name: -int(bill.terms[name][worst]))[:3]
    held = ", ".join(f"{name} {int(bill.terms[name][worst])}" for name in largest)
    raise InfeasibleError(
        f"memory too small: {bill.gpus[worst]} needs {needs} bytes but has {has}: "
        f"{over} bytes too few (most: {held}); {_way_out(bill, over)}"
    )


def _way_out(bill: MemoryBill, over: int) -> str:
    """Every knob that alone would save ``over`` bytes."""
    found = []
    knobs = (
        ("--kv-tokens", bill.kv_tokens, bill.kv_token_bytes, 1),
        ("--batch-tokens", bill.batch_tokens, bill.batch_token_bytes, 1),
        ("slots per GPU (--redundant)", bill.slots_per_gpu, bill.slot_bytes, 1),
    )
    for name, now, each, least in knobs:
        most = now - -(-over // each)
        if most >= least:
            found.append(f"lower {name} from {now} to {most} or less")
    if not found:
        return (
            "no single knob is enough: lower --kv-tokens and --batch-tokens, use a "
            "smaller --precision, more GPUs or GPUs with more memory"
        )
    return " or ".join(found) + ", or use a smaller --precision or more GPUs"


def attention_bytes(model: MoEModelSpec, tp: int) -> int:
    """Projections of all layers on one GPU of an attention group."""
    at, hidden = model.attention, model.hidden
    heads = _ceil(at.heads, tp)
    if at.kv_lora_rank:
        key = at.head_dim + at.rope_head_dim
        shared = hidden * (at.q_lora_rank + at.kv_lora_rank + at.rope_head_dim)
        query = (at.q_lora_rank or hidden) * heads * key
        up = at.kv_lora_rank * heads * (at.head_dim + at.v_head_dim)
        out = heads * at.v_head_dim * hidden
        return model.layers * (shared + query + up + out) * _weight(model)
    # With more GPUs than KV heads, each GPU keeps one head's projections.
    kv_heads = _ceil(at.kv_heads, tp)
    per_layer = 2 * hidden * (heads + kv_heads) * at.head_dim
    return model.layers * per_layer * _weight(model)


def dense_bytes(model: MoEModelSpec, tp: int) -> int:
    """Feed-forward weights of the dense layers on one GPU of the group."""
    layers = model.layers - len(model.moe_layers)
    width = _ceil(model.dense_ffn, tp)
    return layers * model.ffn_matrices * model.hidden * width * _weight(model)


def shared_bytes(model: MoEModelSpec) -> int:
    """Shared experts of all MoE layers, whole on every GPU."""
    per_layer = model.ffn_matrices * model.hidden * model.shared_ffn
    return len(model.moe_layers) * per_layer * _weight(model)


def router_bytes(model: MoEModelSpec) -> int:
    """Routers of all MoE layers, one row and one bias per expert."""
    per_layer = model.experts * (model.hidden + 1)
    return len(model.moe_layers) * per_layer * _wide(model)


def norm_bytes(model: MoEModelSpec) -> int:
    """Two norms per layer, the final one, and MLA's norms of latents."""
    at = model.attention
    latents = at.q_lora_rank + at.kv_lora_rank
    values = model.layers * (2 * model.hidden + latents) + model.hidden
    return values * _wide(model)


def embedding_bytes(model: MoEModelSpec) -> int:
    """Input and output embeddings, one table if tied."""
    tables = 1 if model.tied_embeddings else 2
    return tables * model.vocab * model.hidden * _wide(model)


def kv_token_bytes(model: MoEModelSpec, tp: int) -> int:
    """KV cache of one token in all layers on one GPU of the group."""
    at = model.attention
    if at.kv_lora_rank:
        values = at.kv_lora_rank + at.rope_head_dim
    else:
        values = 2 * _ceil(at.kv_heads, tp) * at.head_dim
    return model.layers * values * _wide(model)


def dedup_buffer_bytes(
    batch_tokens: int, domains: int, messages: tuple[int, int]
) -> int:
    """Buffers of ``dedup_*``: 2·B·N·(dispatch + combine bytes)."""
    return 2 * batch_tokens * domains * sum(messages)


def copies_buffer_bytes(
    batch_tokens: int, slots: int, messages: tuple[int, int]
) -> int:
    """Buffers of ``copies``, as DeepEP's low-latency layout (engines.md §4.2).

    Two halves, each with a send and a receive part:
    2·(max(B·dispatch, P·B·combine) + P·B·max(dispatch, combine)) over all P slots
    of an EP set. Message sizes are those of rule 22, without DeepEP's padding of a
    combine slot (14560 for 14336 bytes).
    """
    dispatch, combine = messages
    send = max(batch_tokens * dispatch, slots * batch_tokens * combine)
    receive = slots * batch_tokens * max(dispatch, combine)
    return 2 * (send + receive)


def all_reduce_bytes(model: MoEModelSpec, tp: int, tokens: int) -> int:
    """Bytes an attention group moves over NVLink to all-reduce ``tokens`` tokens.

    A ring moves 2·(t − 1) times the tensor in total; one all-reduce of D values in
    bf16 follows the attention of every layer and the feed-forward of a dense one.
    """
    reduces = model.layers + model.layers - len(model.moe_layers)
    return 2 * (tp - 1) * tokens * model.hidden * ACTIVATION_BYTES * reduces


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


def _sum(terms: dict[str, IntArray]) -> IntArray:
    total: IntArray = np.sum(list(terms.values()), axis=0, dtype=np.int64)
    return total


def _weight(model: MoEModelSpec) -> int:
    return BYTES_PER_VALUE[model.precision]


def _wide(model: MoEModelSpec) -> int:
    return max(2, _weight(model))


def _ceil(count: int, divisor: int) -> int:
    return -(-count // divisor)
