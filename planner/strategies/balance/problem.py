"""One layer's balance problem: how much a copy carries, exactly and in floats.

Experts e get r_e ≥ 1 copies, Σ r_e = P = G·J, no GPU holds an expert twice, and a
copy carries ``size[e, r_e]``; the greatest load of a GPU is to be least. Axes: E
experts, R numbers of copies (entry 0 is one copy), G GPUs, J slots of a GPU.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numba import njit

from planner.arrays import FloatArray, IdArray, IntArray
from planner.traffic.selection import KNUTH, LOW_32


@dataclass(frozen=True, kw_only=True, eq=False)
class BalanceLayer:
    """One layer under ``even``.

    Attributes
    ----------
    least_ER, divisor_R
        ``least_ER[e, r-1] / divisor_R[r-1]`` is the least that any of r copies
        carries. Counts tables: tokens/r; token traces: the least count that rule
        18's hash gives any of them.
    most_ER
        The most that any of r copies carries, in floats: what a plan is built on.
    total
        (token, expert) pairs of the layer.
    gpus, slots_per_gpu
        G and J.
    """

    least_ER: IntArray
    divisor_R: IntArray
    most_ER: FloatArray
    total: int
    gpus: int
    slots_per_gpu: int

    @property
    def experts(self) -> int:
        """E."""
        return int(self.least_ER.shape[0])

    @property
    def most_copies(self) -> int:
        """R: no expert can have more copies."""
        return int(self.least_ER.shape[1])

    @property
    def slots(self) -> int:
        """P."""
        return self.gpus * self.slots_per_gpu

    def size(self, expert: int, copies: int) -> Fraction:
        """Return the least that one of ``copies`` copies carries."""
        count = int(self.least_ER[expert, copies - 1])
        return Fraction(count, int(self.divisor_R[copies - 1]))


def most_copies(experts: int, gpus: int, slots_per_gpu: int) -> int:
    """Return how many copies one expert can have: one per GPU, others one each."""
    return max(1, min(gpus, gpus * slots_per_gpu - experts + 1))


def copy_sizes(layer: BalanceLayer, slots_GJ: IdArray) -> FloatArray:
    """Return what a copy of every expert carries in a placement, in floats."""
    copies_E = np.bincount(slots_GJ.ravel(), minlength=layer.experts)
    sizes: FloatArray = layer.most_ER[
        np.arange(layer.experts), np.maximum(copies_E, 1) - 1
    ]
    return sizes


def counted_layer(load_E: IntArray, gpus: int, slots_per_gpu: int) -> BalanceLayer:
    """Return the layer of a counts table: r copies carry load/r each."""
    copies_R = np.arange(1, most_copies(load_E.size, gpus, slots_per_gpu) + 1)
    return BalanceLayer(
        least_ER=np.repeat(load_E[:, None], copies_R.size, axis=1).astype(np.int64),
        divisor_R=copies_R,
        most_ER=load_E[:, None] / copies_R[None, :],
        total=int(load_E.sum()),
        gpus=gpus,
        slots_per_gpu=slots_per_gpu,
    )


def hashed_layer(
    ids_TK: IdArray,
    ordinal_T: IntArray,
    *,
    experts: int,
    gpus: int,
    slots_per_gpu: int,
) -> BalanceLayer:
    """Return the layer of a token trace: copies carry what the hash gives them."""
    hashed_T = (ordinal_T.astype(np.uint64) * KNUTH) & LOW_32
    copies = most_copies(experts, gpus, slots_per_gpu)
    least_ER, most_ER = _hashed_counts(ids_TK, hashed_T, experts, copies)
    return BalanceLayer(
        least_ER=least_ER,
        divisor_R=np.ones(copies, dtype=np.int64),
        most_ER=most_ER.astype(np.float64),
        total=int((ids_TK >= 0).sum()),
        gpus=gpus,
        slots_per_gpu=slots_per_gpu,
    )


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _hashed_counts(
    ids_TK: IdArray,
    hashed_T: np.ndarray[tuple[int], np.dtype[np.uint64]],
    experts: int,
    copies: int,
) -> tuple[IntArray, IntArray]:
    least_ER = np.zeros((experts, copies), dtype=np.int64)
    most_ER = np.zeros((experts, copies), dtype=np.int64)
    for count in range(1, copies + 1):
        share_EM = np.zeros((experts, count), dtype=np.int64)
        for token in range(ids_TK.shape[0]):
            copy = np.int64(hashed_T[token] % np.uint64(count))
            for expert in ids_TK[token]:
                if expert >= 0:
                    share_EM[expert, copy] += 1
        for expert in range(experts):
            least_ER[expert, count - 1] = share_EM[expert].min()
            most_ER[expert, count - 1] = share_EM[expert].max()
    return least_ER, most_ER
