"""The model as the planner needs it: its MoE shape and its bytes.

Filled by ``presets`` or from a JSON file; the memory terms live in ``memory``.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16", "fp8"]
BYTES_PER_VALUE: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Attention of one layer: grouped-query, or latent (MLA) if ``kv_lora_rank``.

    Dimensions are per head unless the name says otherwise; MLA follows
    DeepSeek-V2 (``kv_lora_rank`` + ``rope_head_dim`` cached values per token).
    """

    heads: int
    kv_heads: int
    head_dim: int
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    rope_head_dim: int = 0
    v_head_dim: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEModelSpec:
    """A Mixture-of-Experts transformer.

    Attributes
    ----------
    moe_layers
        Numbers in the model of the MoE layers, ascending.
    layers
        All transformer layers, dense ones included.
    ffn_matrices
        Weight matrices of one expert: 3 for gated (SwiGLU), 2 otherwise.
    expert_ffn, shared_ffn, dense_ffn
        Inner widths of a routed expert, of all shared experts together, and of a
        dense layer.
    routing_groups
        Groups of group-limited routing; 1 if none.
    dispatch_dtype, combine_dtype
        Wire formats of rule 22.
    """

    name: str
    layers: int
    moe_layers: tuple[int, ...]
    experts: int
    top_k: int
    hidden: int
    expert_ffn: int
    shared_ffn: int
    dense_ffn: int
    ffn_matrices: int
    attention: Attention
    vocab: int
    tied_embeddings: bool = False
    routing_groups: int = 1
    precision: Precision = "bf16"
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16"] = "bf16"
    source: str = ""

    @property
    def expert_bytes(self) -> int:
        """Bytes of one routed expert's weights at the model's precision."""
        per_expert = self.ffn_matrices * self.hidden * self.expert_ffn
        return per_expert * BYTES_PER_VALUE[self.precision]
