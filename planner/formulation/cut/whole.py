"""The cut formulation of all layers in one model, for other solvers to read."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.errors import UsageError
from planner.formulation.cut.encode import CutModel, encode
from planner.formulation.cut.layer import MOST_COLUMNS
from planner.formulation.cut.ports import ports_of
from planner.formulation.cut.problem import layer_problem
from planner.formulation.linear_model import LinearModel
from planner.instance import PlacementInstance


def why_not(instance: PlacementInstance) -> str | None:
    """Say why an instance has no linear model of layers, or None if it has one."""
    if len(instance.workloads) > 1:
        return "several workloads are several models"
    if instance.traffic != "copies":
        return (
            f"traffic {instance.traffic} has no linear model, copies does: what a "
            "merged transfer saves is not a sum over experts"
        )
    if instance.single or instance.nested_groups:
        return "the cut formulation knows equal slots and free routing groups only"
    levels = ports_of(instance).hierarchy.levels
    gpus, experts = instance.layout.gpu_count, instance.model.experts
    columns = experts * gpus * (1 + 2 * levels)
    if columns > MOST_COLUMNS:
        return f"a layer has {columns:,} columns; at most {MOST_COLUMNS:,} are written"
    return None


def whole_model(instance: PlacementInstance) -> tuple[LinearModel, float]:
    """Return the model of all layers, and the objective that its value 1 stands for.

    Solvers' tolerances are absolute, so values are near 1, not near a microsecond.
    Families are called ``l3.placed`` for the layer with number 3 in the model. Under
    ``worst_layer`` the column ``worst`` is at least every layer's value.

    Raises
    ------
    UsageError
        If there is none, with the reason.
    """
    reason = why_not(instance)
    if reason is not None:
        raise UsageError(f"no model to write: {reason}")
    ports = ports_of(instance)
    layers = range(instance.layer_count)
    cuts = [encode(layer_problem(instance, ports, layer)) for layer in layers]
    prefixes = [f"l{number}." for number in instance.model.moe_layers]
    unit = max(cut.scale.time_unit for cut in cuts)
    joined = _side_by_side([_in_units(cut, unit) for cut in cuts], prefixes)
    if instance.objective.layers == "worst_layer":
        joined = _worst(joined, [cut.model.cost_V.size for cut in cuts])
    return joined, unit


def _in_units(cut: CutModel, unit: float) -> LinearModel:
    return replace(cut.model, cost_V=cut.model.cost_V * (cut.scale.time_unit / unit))


def _side_by_side(
    models: Sequence[LinearModel], prefixes: Sequence[str]
) -> LinearModel:
    """Join models that share nothing."""
    starts_V = np.cumsum([0, *(model.cost_V.size for model in models)])
    starts_R = np.cumsum([0, *(model.row_lower_R.size for model in models)])
    numbered = list(zip(models, prefixes, starts_V, starts_R, strict=False))
    return LinearModel(
        lower_V=np.concatenate([model.lower_V for model in models]),
        upper_V=np.concatenate([model.upper_V for model in models]),
        cost_V=np.concatenate([model.cost_V for model in models]),
        integer_V=np.concatenate([model.integer_V for model in models]),
        row_lower_R=np.concatenate([model.row_lower_R for model in models]),
        row_upper_R=np.concatenate([model.row_upper_R for model in models]),
        row_Z=np.concatenate([model.row_Z + row for model, _, _, row in numbered]),
        column_Z=np.concatenate(
            [model.column_Z + column for model, _, column, _ in numbered]
        ),
        value_Z=np.concatenate([model.value_Z for model in models]),
        variables={
            prefix + name: index + column
            for model, prefix, column, _ in numbered
            for name, index in model.variables.items()
        },
        families={
            prefix + name: index + row
            for model, prefix, _, row in numbered
            for name, index in model.families.items()
        },
    )


def _worst(model: LinearModel, sizes: Sequence[int]) -> LinearModel:
    """Minimize the largest of the blocks' values: block's cost·v − worst <= 0."""
    worst, first = model.cost_V.size, model.row_lower_R.size
    layer_V = np.repeat(np.arange(len(sizes)), sizes)
    priced = np.flatnonzero(model.cost_V)
    rows = first + np.arange(len(sizes))
    return LinearModel(
        lower_V=np.append(model.lower_V, 0.0),
        upper_V=np.append(model.upper_V, np.inf),
        cost_V=np.append(np.zeros(worst), 1.0),
        integer_V=np.append(model.integer_V, False),
        row_lower_R=np.append(model.row_lower_R, np.full(len(sizes), -np.inf)),
        row_upper_R=np.append(model.row_upper_R, np.zeros(len(sizes))),
        row_Z=np.concatenate([model.row_Z, first + layer_V[priced], rows]),
        column_Z=np.concatenate(
            [model.column_Z, priced, np.full(len(sizes), worst, dtype=np.int64)]
        ),
        value_Z=np.concatenate(
            [model.value_Z, model.cost_V[priced], np.full(len(sizes), -1.0)]
        ),
        variables={**model.variables, "worst": np.asarray([worst])},
        families={**model.families, "worst": rows},
    )
