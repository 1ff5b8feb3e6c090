"""The evaluator: the only judge of a plan, exact and blind to formulations."""

from planner.evaluator.evaluation import Evaluation, evaluate
from planner.evaluator.joint import (
    JointEvaluation,
    evaluate_holdout,
    evaluate_planning,
)
from planner.evaluator.layer import LayerLoads, layer_loads
from planner.evaluator.objective import layer_value

__all__ = [
    "Evaluation",
    "JointEvaluation",
    "LayerLoads",
    "evaluate",
    "evaluate_holdout",
    "evaluate_planning",
    "layer_loads",
    "layer_value",
]
