"""What processes of one run send each other: functions, arguments, results.

As ``multiprocessing`` sends them, between processes of which one started the other;
but torch would have tensors shared, with a process that may have ended by then.
"""

import copyreg
from io import BytesIO
from multiprocessing.reduction import ForkingPickler
from typing import Any


class _ByValue(ForkingPickler):
    """Sends everything by value, tensors too."""

    def __init__(self, target: BytesIO) -> None:
        super().__init__(target)
        self.dispatch_table = copyreg.dispatch_table.copy()


def pack(value: object) -> bytes:
    """Return a value as bytes to be sent."""
    target = BytesIO()
    _ByValue(target).dump(value)
    return target.getvalue()


def unpack(parcel: bytes) -> Any:
    """Return the value of a parcel that came from a process of this run."""
    return ForkingPickler.loads(parcel)
