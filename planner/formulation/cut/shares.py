"""Which links see only what crosses borders: shares split into sources and targets.

The load of a link is Σ share(s, d)·transfers(s, d). Where share(s, d) = α_k(s) +
γ_k(d) for the pairs of each level k, it is Σ_k Σ_g α_k(g)·out_k(g) + γ_k(g)·in_k(g):
no flow needs to remember both ends. All arithmetic is on exact integers.
"""

from dataclasses import dataclass

import numpy as np

from planner.arrays import BoolArray, ExactArray
from planner.formulation.cut.hierarchy import Hierarchy


@dataclass(frozen=True, kw_only=True, eq=False)
class Potentials:
    """α and γ of one link: share(s, d) = out_HG[k, s] + in_HG[k, d]."""

    out_HG: ExactArray
    in_HG: ExactArray


def potentials(share_GG: ExactArray, hierarchy: Hierarchy) -> Potentials | None:
    """Split the shares of a link at every level, or return None.

    The smallest α of every independent group of pairs is 0, so equal shares give
    equal potentials.
    """
    shape = (hierarchy.levels, hierarchy.gpu_count)
    out_HG = np.zeros(shape, dtype=share_GG.dtype)
    in_HG = np.zeros(shape, dtype=share_GG.dtype)
    for level in range(1, hierarchy.levels + 1):
        block_G, child_G = hierarchy.block_KG[level - 1 : level + 1][::-1]
        touched = np.where(hierarchy.level_GG == level, share_GG, 0) != 0
        for block in np.unique(block_G[touched.any(axis=1)]).tolist():
            members = np.flatnonzero(block_G == block)
            split = _split(share_GG[np.ix_(members, members)], child_G[members])
            if split is None:
                return None
            out_HG[level - 1, members] = split.out_HG[0]
            in_HG[level - 1, members] = split.in_HG[0]
    return Potentials(out_HG=out_HG, in_HG=in_HG)


def _split(share: ExactArray, child: ExactArray) -> Potentials | None:
    """Split the shares between different children of one block."""
    first = child == child[0]
    other = int(np.argmax(~first))
    second = child == child[other]
    out, into = np.zeros(len(child), share.dtype), np.zeros(len(child), share.dtype)
    # Two children: (first → second) and (second → first) are independent groups
    # of pairs, each with a level of its own; three or more hang together.
    two = bool((first | second).all())
    out[~first] = share[~first, 0]
    into[~second] = share[other, ~second] - out[other]
    if not two:
        third = int(np.argmax(~(first | second)))
        into[second] = share[third, second] - out[third]
    out[first] = share[first, other] - into[other]
    if two:
        into[second] = share[0, second] - out[0]
        _settle(out, into, second, first)
        _settle(out, into, first, second)
    else:
        everyone = np.ones(len(child), dtype=np.bool_)
        _settle(out, into, everyone, everyone)
    apart = child[:, None] != child[None, :]
    if ((out[:, None] + into[None, :] != share) & apart).any():
        return None
    return Potentials(out_HG=out[None], in_HG=into[None])


def _settle(
    out: ExactArray, into: ExactArray, sources: BoolArray, targets: BoolArray
) -> None:
    """Move the common part of the sources' potentials to the targets."""
    common = out[sources].min()
    out[sources] -= common
    into[targets] += common
