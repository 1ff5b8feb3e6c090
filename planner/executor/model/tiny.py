"""The bundled model's dimensions, as its card names them; without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from planner.errors import ModelError
from planner.executor.gating.gate import Gate
from planner.executor.model.config import DecoderConfig, GroupedDims


@dataclass(frozen=True)
class TinyMoESpec:
    """Dimensions of a small decoder with multi-head attention and shared experts.

    ``config`` is the decoder of these dimensions.
    """

    vocab: int = 2048
    context: int = 256
    hidden: int = 96
    layers: int = 7
    dense_layers: int = 1
    heads: int = 4
    experts: int = 64
    top_k: int = 6
    expert_ffn: int = 24
    shared_ffn: int = 64
    dense_ffn: int = 192

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise ModelError("must be an integer >= 1", where=name, value=value)
        if self.hidden % (2 * self.heads):
            raise ModelError(
                "must be an even multiple of heads", where="hidden", value=self.hidden
            )
        self.config  # noqa: B018 - raises if the dimensions do not go together

    @property
    def config(self) -> DecoderConfig:
        """The decoder of these dimensions."""
        values = asdict(self)
        heads, experts, top_k = (values.pop(x) for x in ("heads", "experts", "top_k"))
        return DecoderConfig(
            attention=GroupedDims(
                heads=heads, kv_heads=heads, head_dim=self.hidden // heads
            ),
            gate=Gate(experts=experts, top_k=top_k, scores="sigmoid"),
            **values,
        )

    def to_dict(self) -> dict[str, int]:
        """Return the dimensions by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, int]) -> "TinyMoESpec":
        """Build a spec from exactly the dimensions that ``to_dict`` returns."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            odd = sorted(names.symmetric_difference(values))
            raise ModelError(f"must hold exactly {sorted(names)}", value=odd)
        return cls(**values)
