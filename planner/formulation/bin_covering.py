"""Multipliers for covering bins: the dual of the configuration relaxation.

Items e have sizes s_e of either sign; a set B is a *cover* if Σ_{e∈B} s_e ≥ s. Every
item goes into one bin and K bins have to be covers. The relaxation chooses covers with
fractions that use every item once; its dual gives every item a multiplier y_e such
that Σ_{e∈B} y_e ≥ 1 for all covers B, and Σ_e y_e < K proves that K are not possible.

Only the covers found so far are rows. Smaller items never get a greater multiplier,
which spares most of the rows and costs nothing: where a larger item has the smaller
multiplier, giving both the average keeps every row, as exchanging the smaller item of
a cover for the larger one leaves a cover.
"""

from collections.abc import Collection

import numpy as np

from planner.arrays import FloatArray
from planner.formulation.linear_model import LinearModel, ModelBuilder


def covering_model(
    lower_E: FloatArray, upper_E: FloatArray, covers: Collection[frozenset[int]]
) -> LinearModel:
    """Return the model: minimize Σ y over the covers given.

    Parameters
    ----------
    lower_E, upper_E
        Range of each item's multiplier, items by descending size.
    covers
        Sets of items that are covers.
    """
    builder = ModelBuilder()
    y_E = builder.variables("y", lower_E.shape, lower=lower_E, upper=upper_E, cost=1.0)
    row_C = builder.rows("cover", (len(covers),), lower=1.0)
    sizes = [len(cover) for cover in covers]
    if covers:
        items = np.fromiter((item for cover in covers for item in cover), np.int64)
        builder.add(np.repeat(row_C, sizes), y_E[items])
    row_M = builder.rows("monotone", (y_E.size - 1,), lower=0.0)
    builder.add(row_M, y_E[:-1], 1.0)
    builder.add(row_M, y_E[1:], -1.0)
    return builder.build()
