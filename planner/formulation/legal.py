"""The slots of a layer that keep its rules, as close as can be to given ones.

Binary x[r, e] says that rank r holds expert e. Every rank fills its slots, every
expert has a copy; pins, forbidden ranks, copies apart and the most moves are rows.
"""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.constraints import LayerRules
from planner.formulation.linear_model import LinearModel, ModelBuilder


def legal_model(rules: LayerRules, slots: int, cost_RE: FloatArray) -> LinearModel:
    """Return the model of a layer with ``slots`` per rank that minimizes a cost."""
    ranks, experts = rules.allowed_RE.shape
    builder = ModelBuilder()
    x_RE = builder.variables(
        "x",
        (ranks, experts),
        upper=rules.allowed_RE.astype(np.float64),
        cost=cost_RE,
        integer=True,
    )
    filled_R = builder.rows("filled", (ranks,), lower=slots, upper=slots)
    builder.add(filled_R[:, None], x_RE)
    covered_E = builder.rows("covered", (experts,), lower=1.0)
    builder.add(covered_E[None, :], x_RE)
    pinned_P = builder.rows("pinned", (rules.pin_P.size,), lower=1.0)
    for row, expert, pin_R in zip(pinned_P, rules.pin_P, rules.pin_PR, strict=True):
        builder.add(row, x_RE[pin_R, expert])
    for apart_E, label_R in zip(rules.apart_KE, rules.label_KR, strict=True):
        for label in np.unique(label_R):
            inside_R = label_R == label
            if inside_R.sum() > 1:
                _add_apart(builder, x_RE[np.ix_(inside_R, apart_E)])
    if (rules.new_RE > 0).any():
        moved = builder.rows("moved", (1,), upper=float(rules.most_moves))
        builder.add(moved, x_RE.ravel(), rules.new_RE.ravel().astype(np.float64))
    return builder.build()


def _add_apart(builder: ModelBuilder, inside_RE: IntArray) -> None:
    together_E = builder.rows("apart", (inside_RE.shape[1],), upper=1.0)
    builder.add(together_E[None, :], inside_RE)
