"""How far outputs may be from the unsharded float32 model's; without torch."""

TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2, "fp8": 2.5e-1}
"""Greatest relative difference of a token's outputs, by precision."""
