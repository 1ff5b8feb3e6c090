"""What a replay moved, without torch: counts per GPU pair, loads per link."""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.arrays import ExactArray, FloatArray, IntArray
from planner.executor.precision.tolerance import TOLERANCES, Tolerance

OUTPUT_TOLERANCE = TOLERANCES["fp32"].outputs
"""Greatest relative difference from the unsharded model's outputs, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputCheck:
    """How placed outputs compare with those of the unsharded model.

    Differences are relative per token: the greatest absolute difference of an
    output over the greatest absolute value of the unsharded one. Both runs go
    through all layers on their own, so differences add up. In bf16 and fp8 a
    layer's differences are over its mean greatest value where that is more.

    Attributes
    ----------
    error_L
        Greatest difference of the routed experts' outputs, by layer.
    final_error
        Greatest difference of what leaves the last layer; logits under real gating.
    """

    error_L: FloatArray
    final_error: float

    @property
    def layer_error(self) -> float:
        """The greatest difference in any layer."""
        return float(self.error_L.max(initial=0.0))

    @property
    def max_relative_error(self) -> float:
        """The greatest difference found anywhere."""
        return max(self.layer_error, self.final_error)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moved:
    """What one back end counted, before links.

    Attributes
    ----------
    dispatch_LGG, combine_LGG
        Transfers by layer, from GPU, to GPU; the diagonal is 0.
    gpu_pairs_LG
        (token, expert) pairs that each GPU computed.
    slot_bytes_G
        Bytes of expert weights in the slots of each GPU over all layers, at the
        model's precision and size.
    buffer_bytes_G
        The most bytes that rows sent and received held of each GPU at once, at the
        size of the model's messages; None without tensors.
    outputs
        None without tensors.
    ids_agreeing
        Share of the trace's expert ids that the model's router chose, or would have
        chosen, for the same token and layer; None where routing was forced.
    held
        Bytes of the model's tensors by term, routed experts left out; None where no
        model ran.
    """

    dispatch_LGG: IntArray
    combine_LGG: IntArray
    gpu_pairs_LG: IntArray
    slot_bytes_G: IntArray
    buffer_bytes_G: IntArray | None = None
    outputs: OutputCheck | None = None
    ids_agreeing: float | None = None
    held: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayResult:
    """A replayed part of a trace.

    Attributes
    ----------
    numerators_L2A
        Transfers on every link as numerators over ``q``: layer, leg (dispatch,
        combine), link. Links and groups are in the topology's order; ``cables``
        are not divided out.
    message_bytes
        Bytes of one dispatch and one combine transfer.
    precision
        What rows travelled as and slots held.
    seconds
        Wall time of moving and counting; not part of any digest.
    """

    backend: str
    gating: str
    tokens: int
    moved: Moved
    numerators_L2A: ExactArray
    q: int
    message_bytes: tuple[int, int]
    seconds: float
    precision: str = "fp32"

    @property
    def transfers_L2GG(self) -> tuple[IntArray, IntArray]:
        """Transfers of the dispatch and the combine leg, [L, G, G] each."""
        return self.moved.dispatch_LGG, self.moved.combine_LGG

    @property
    def byte_numerators_L2A(self) -> ExactArray:
        """Bytes on every link as exact numerators over ``q``."""
        exact = self.numerators_L2A.astype(object)
        dispatch, combine = self.message_bytes
        exact[:, 0] *= dispatch
        exact[:, 1] *= combine
        return exact

    @property
    def max_relative_error(self) -> float | None:
        """Greatest difference of an output; None without tensors."""
        outputs = self.moved.outputs
        return None if outputs is None else outputs.max_relative_error

    @property
    def tolerance(self) -> Tolerance:
        """The differences that the precision allows."""
        return TOLERANCES[self.precision]

    @property
    def ids_agreeing(self) -> float | None:
        """Share of expert ids that agree with the trace; None if routing was forced."""
        return self.moved.ids_agreeing
