"""The precisions that a replay can have, by name."""

from planner.errors import UsageError
from planner.executor.precision.base import Precision, WireFormat
from planner.executor.precision.bf16 import Bf16
from planner.executor.precision.fp8 import BLOCK, Fp8
from planner.executor.precision.fp32 import Fp32

FP32 = Precision(
    name="fp32",
    wire=WireFormat(dispatch=Fp32(), combine=Fp32()),
    weights=Fp32(),
    exact=True,
)
BF16 = Precision(
    name="bf16", wire=WireFormat(dispatch=Bf16(), combine=Bf16()), weights=Bf16()
)
# Answers are bf16 in DeepSeek-V3 and DeepEP as well.
FP8 = Precision(
    name="fp8", wire=WireFormat(dispatch=Fp8(), combine=Bf16()), weights=Fp8(BLOCK)
)
PRECISIONS = {precision.name: precision for precision in (FP32, BF16, FP8)}


def precision_named(name: str) -> Precision:
    """Return the precision of a name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name!r}: choose from {', '.join(PRECISIONS)}")
    return PRECISIONS[name]
