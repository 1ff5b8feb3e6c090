"""Dimensions of a decoder, without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self

from planner.errors import ModelError
from planner.executor.gating.gate import Gate

Activation = Literal["swiglu", "gelu"]
"""SwiGLU has three matrices (one gates), GELU two."""
ACTIVATIONS: tuple[Activation, ...] = ("swiglu", "gelu")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedDims:
    """Grouped-query attention (arXiv:2305.13245): heads share keys and values.

    ``kv_heads`` = ``heads`` is multi-head attention, 1 is multi-query attention.
    """

    kind: ClassVar[str] = "grouped"
    heads: int
    kv_heads: int
    head_dim: int

    def __post_init__(self) -> None:
        _check_counts(self, "attention.")
        if self.heads % self.kv_heads:
            raise ModelError(
                f"must be a multiple of kv_heads {self.kv_heads}",
                where="attention.heads",
                value=self.heads,
            )
        _check_even(self.head_dim, "attention.head_dim")

    @property
    def cached_values(self) -> int:
        """Values that the cache keeps per token and layer."""
        return 2 * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDims:
    """Multi-head latent attention (arXiv:2405.04434, section 2.1).

    Attributes
    ----------
    q_lora_rank
        Width of the latent that queries come from; 0 if straight from the input.
    kv_lora_rank
        Width of the latent that all heads' keys and values come from.
    rope_head_dim
        Rotated part of a query; of keys there is one such part for all heads.
    head_dim, v_head_dim
        Unrotated part of a head's queries and keys, and a head's values.
    """

    kind: ClassVar[str] = "latent"
    heads: int
    q_lora_rank: int = 0
    kv_lora_rank: int
    rope_head_dim: int
    head_dim: int
    v_head_dim: int

    def __post_init__(self) -> None:
        _check_counts(self, "attention.", may_be_0=("q_lora_rank",))
        _check_even(self.rope_head_dim, "attention.rope_head_dim")

    @property
    def cached_values(self) -> int:
        """Values that the cache keeps per token and layer."""
        return self.kv_lora_rank + self.rope_head_dim


AttentionDims = GroupedDims | LatentDims


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """Dimensions of a decoder whose first layers are dense.

    Attributes
    ----------
    context
        Most tokens of a sequence.
    dense_layers
        Layers ``dense_layers .. layers - 1`` route every token to ``top_k`` of
        ``experts`` experts, chosen by ``gate``.
    expert_ffn, shared_ffn, dense_ffn
        Inner widths of a routed expert, of all shared experts together (0: none)
        and of a dense layer.
    tied
        Whether logits come from the input embeddings.
    unrouted_ids
        Token ids that no routed expert sees (such as special ids).
    """

    vocab: int
    context: int
    hidden: int
    layers: int
    dense_layers: int
    expert_ffn: int
    shared_ffn: int
    dense_ffn: int
    attention: AttentionDims
    gate: Gate
    activation: Activation = "swiglu"
    tied: bool = True
    unrouted_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_counts(self, may_be_0=("dense_layers", "shared_ffn", "dense_ffn"))
        if self.dense_layers > self.layers:
            raise ModelError(
                "must not exceed layers", where="dense_layers", value=self.dense_layers
            )
        if self.dense_layers and not self.dense_ffn:
            raise ModelError(
                "must be >= 1 where there are dense layers", where="dense_ffn", value=0
            )
        if self.activation not in ACTIVATIONS:
            raise ModelError(
                f"must be one of {', '.join(ACTIVATIONS)}",
                where="activation",
                value=self.activation,
            )
        for token in self.unrouted_ids:
            if type(token) is not int or not 0 <= token < self.vocab:
                raise ModelError(
                    f"must be from 0 to {self.vocab - 1}",
                    where="unrouted_ids",
                    value=token,
                )

    @property
    def experts(self) -> int:
        """Routed experts of a layer."""
        return self.gate.experts

    @property
    def top_k(self) -> int:
        """Routed experts of a token."""
        return self.gate.top_k

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers with experts."""
        return tuple(range(self.dense_layers, self.layers))

    def to_dict(self) -> dict[str, Any]:
        """Return all dimensions by name, as JSON can hold them."""
        values = asdict(self)
        values["attention"] = {"kind": self.attention.kind, **values["attention"]}
        values["unrouted_ids"] = list(self.unrouted_ids)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build a config from exactly what ``to_dict`` returns."""
        _check_names(cls, values)
        attention = dict(values["attention"])
        kind = attention.pop("kind", None)
        kinds: dict[str, type[AttentionDims]] = {
            dims.kind: dims for dims in (GroupedDims, LatentDims)
        }
        if kind not in kinds:
            raise ModelError(
                f"must be one of {', '.join(kinds)}", where="attention.kind", value=kind
            )
        _check_names(kinds[kind], attention)
        _check_names(Gate, values["gate"])
        nested = {
            "attention": kinds[kind](**attention),
            "gate": Gate(**values["gate"]),
            "unrouted_ids": tuple(values["unrouted_ids"]),
        }
        return cls(**{**values, **nested})


def _check_counts(
    dims: DecoderConfig | AttentionDims,
    prefix: str = "",
    may_be_0: tuple[str, ...] = (),
) -> None:
    for field in fields(dims):
        value, least = getattr(dims, field.name), int(field.name not in may_be_0)
        if field.type is int and (type(value) is not int or value < least):
            raise ModelError(
                f"must be an integer >= {least}",
                where=prefix + field.name,
                value=value,
            )


def _check_even(value: int, where: str) -> None:
    if value % 2:
        raise ModelError("must be even, to be rotated", where=where, value=value)


def _check_names(
    cls: type[DecoderConfig | AttentionDims | Gate], values: Mapping[str, Any]
) -> None:
    names = {field.name for field in fields(cls)}
    if set(values) != names:
        odd = sorted(names.symmetric_difference(values))
        raise ModelError(f"must hold exactly {sorted(names)}", value=odd)
