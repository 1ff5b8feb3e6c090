"""What the tokens of a layer chose, those of several workloads one after the other.

Each workload moves through a cluster of its own: the sources of the second are
numbered from G on, and so forth (``planner.strategies.search.joint``).
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart

NOTHING = -1


class Sample(NamedTuple):
    """Tokens of a part to look at: which, source, ordinal, class (of the network).

    ``times_KC`` is how often draw k of sequences takes each class, if any is drawn.
    """

    index_T: IntArray
    source_T: IntArray
    ordinal_T: IntArray
    class_T: IntArray
    times_KC: FloatArray | None = None


class Choices(NamedTuple):
    """Experts (-1: none), source, ordinal and class of each token that chose any."""

    experts_TK: IdArray
    source_T: IntArray
    ordinal_T: IntArray
    class_T: IntArray


def choices_of(
    instance: PlacementInstance, layer: int, sample: Sample | None = None
) -> Choices:
    """Return the choices of all workloads in a layer; a sample is of the only one.

    Raises
    ------
    TypeError
        For a counts table, which has no tokens.
    """
    apart = not all_alike(instance)
    made = []
    for number, view in enumerate(instance.views):
        found = _of_one(view.planning, layer, sample)
        if apart and TRAFFIC.get(view.traffic).linear:
            found = _one_by_one(found)
        shift = number * instance.layout.gpu_count
        made.append(
            found._replace(
                source_T=found.source_T + shift, class_T=found.class_T + shift
            )
        )
    return made[0] if len(made) == 1 else _joined(made)


def all_alike(instance: PlacementInstance) -> bool:
    """Whether transfers are merged in all workloads or in none."""
    return len({TRAFFIC.get(view.traffic).linear for view in instance.views}) == 1


def _of_one(part: object, layer: int, sample: Sample | None) -> Choices:
    if not isinstance(part, TokenPart):
        raise TypeError("a counts table has no tokens")
    if sample is None:
        every = np.arange(part.source_T.size)
        sample = Sample(every, part.source_T, part.ordinal_T, part.source_T)
    ids_TK = part.experts_LTK[layer, sample.index_T]
    known_T = np.flatnonzero((ids_TK >= 0).any(axis=1))
    return Choices(
        ids_TK[known_T],
        sample.source_T[known_T],
        sample.ordinal_T[known_T],
        sample.class_T[known_T],
    )


def _one_by_one(choices: Choices) -> Choices:
    """Make a token of every choice: nothing is left that could be merged."""
    width = choices.experts_TK.shape[1]
    ids_T = choices.experts_TK.reshape(-1)
    known_T = np.flatnonzero(ids_T >= 0)
    return Choices(
        ids_T[known_T, np.newaxis],
        np.repeat(choices.source_T, width)[known_T],
        np.repeat(choices.ordinal_T, width)[known_T],
        np.repeat(choices.class_T, width)[known_T],
    )


def _joined(made: list[Choices]) -> Choices:
    width = max(each.experts_TK.shape[1] for each in made)
    rows = [
        np.pad(
            each.experts_TK,
            ((0, 0), (0, width - each.experts_TK.shape[1])),
            constant_values=NOTHING,
        )
        for each in made
    ]
    return Choices(
        np.concatenate(rows),
        np.concatenate([each.source_T for each in made]),
        np.concatenate([each.ordinal_T for each in made]),
        np.concatenate([each.class_T for each in made]),
    )
