"""The evaluator: the only judge of a plan, exact and blind to formulations."""

from planner.evaluator.evaluation import Evaluation, evaluate
from planner.evaluator.layer import LayerLoads, layer_loads
from planner.evaluator.objective import layer_value

__all__ = ["Evaluation", "LayerLoads", "evaluate", "layer_loads", "layer_value"]
