"""How far outputs may be from the unsharded float32 model's; without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Greatest relative differences.

    Attributes
    ----------
    outputs
        Of what leaves the last layer, per token: the greatest difference over the
        token's greatest value.
    layers
        Of the sum over a token's routed experts in any layer, likewise; in bf16 and
        fp8 over the layer's mean greatest value if that is more, since sums in which
        experts cancel keep the absolute error of their terms.
    """

    outputs: float
    layers: float


TOLERANCES = {
    "fp32": Tolerance(outputs=1e-5, layers=1e-5),
    "bf16": Tolerance(outputs=2e-2, layers=3e-2),
    "fp8": Tolerance(outputs=2e-1, layers=4e-1),
}
"""By precision: 1.4 to 2 times what is measured through 58 layers (fp32: 3 to 8)."""
