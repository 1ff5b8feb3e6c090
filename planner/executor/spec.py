"""Dimensions of the small Mixture-of-Experts model, without torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from planner.errors import ModelError


@dataclass(frozen=True)
class TinyMoESpec:
    """Dimensions of a small decoder whose first layers are dense.

    Layers ``dense_layers .. layers - 1`` route every token to ``top_k`` of
    ``experts`` experts, and pass it through one shared expert as well.
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
        if self.top_k > self.experts:
            raise ModelError("must not exceed experts", where="top_k", value=self.top_k)
        if self.dense_layers > self.layers:
            raise ModelError(
                "must not exceed layers", where="dense_layers", value=self.dense_layers
            )

    @property
    def moe_layers(self) -> list[int]:
        """Indices of the layers with experts."""
        return list(range(self.dense_layers, self.layers))

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
