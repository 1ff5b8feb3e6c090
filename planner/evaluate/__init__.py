"""The evaluator: the only judge of a plan, exact and blind to formulations."""

from planner.evaluate.evaluation import Evaluation, evaluate
from planner.evaluate.layer import LayerLoads, layer_loads
from planner.evaluate.objective import layer_value

__all__ = ["Evaluation", "LayerLoads", "evaluate", "layer_loads", "layer_value"]
