"""Bytes of one dispatch and one combine transfer (rule 22)."""

from planner.errors import UsageError
from planner.workload.model_spec import MoEModelSpec

_SCALE_BLOCK = 128
_ALIGNMENT = 16


def message_bytes(
    model: MoEModelSpec, traffic: str, override: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Return the bytes of one dispatch and one combine transfer.

    Parameters
    ----------
    traffic
        ``copies`` and ``direct`` send a token once per expert; the ``dedup_*`` modes
        send it once with its K expert ids and weights, in multiples of 16 bytes.
    override
        ``--message-bytes D,C``: taken as they are.

    Raises
    ------
    UsageError
        If an override is negative.
    """
    if override is not None:
        if min(override) < 0:
            raise UsageError(f"--message-bytes {override}: both must be >= 0")
        return override
    hidden, top_k = model.hidden, model.top_k
    scales = 4 * _ceil(hidden, _SCALE_BLOCK)
    wire = hidden + scales if model.dispatch_dtype == "fp8" else 2 * hidden
    if traffic in ("copies", "direct"):
        return 16 + wire, 2 * hidden
    return _aligned(wire + 8 + 8 * top_k), _aligned(2 * hidden + 8 + 4 * top_k)


def _aligned(count: int) -> int:
    return _ceil(count, _ALIGNMENT) * _ALIGNMENT


def _ceil(count: int, divisor: int) -> int:
    return -(-count // divisor)
