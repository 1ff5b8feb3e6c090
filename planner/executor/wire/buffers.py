"""What lies in the send and receive buffers of ranks, and the most at once."""

import numpy as np

from planner.arrays import IntArray


class Buffers:
    """Bytes of rows on their way, at the size of the model's messages.

    A row lies in its sender's buffer and in its receiver's from when it leaves until
    its answer is home. Rows that stay on their rank need none.

    Parameters
    ----------
    message_bytes
        Bytes of one dispatch and one combine transfer (rule 22).

    Attributes
    ----------
    peak_G
        The most bytes that each hosted rank had at once.
    """

    def __init__(self, ranks: int, message_bytes: tuple[int, int] = (0, 0)) -> None:
        self._dispatch, self._combine = message_bytes
        self._now_G: IntArray = np.zeros(ranks, dtype=np.int64)
        self.peak_G: IntArray = np.zeros(ranks, dtype=np.int64)

    def dispatched(self, rows_G: IntArray) -> IntArray:
        """Hold rows of a dispatch; return the bytes, to be freed."""
        return self._held(rows_G * self._dispatch)

    def combined(self, rows_G: IntArray) -> IntArray:
        """Hold rows of a combine; return the bytes, to be freed."""
        return self._held(rows_G * self._combine)

    def free(self, bytes_G: IntArray) -> None:
        """Give bytes back."""
        self._now_G -= bytes_G

    def _held(self, bytes_G: IntArray) -> IntArray:
        self._now_G += bytes_G
        np.maximum(self.peak_G, self._now_G, out=self.peak_G)
        return bytes_G


def rows_at(counts_GG: IntArray) -> IntArray:
    """Return the rows that each rank sends and receives."""
    rows_G: IntArray = counts_GG.sum(axis=0) + counts_GG.sum(axis=1)
    return rows_G
