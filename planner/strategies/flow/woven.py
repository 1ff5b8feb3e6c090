"""A start for walks with one expert per GPU altogether: chains of experts.

Every domain holds one expert of each of some consecutive layers; which follows which
is an assignment per pair of layers that keeps the most tokens in their domain.
"""

import numpy as np
from ortools.graph.python import linear_sum_assignment

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.flow.flows import Flows, slots_of
from planner.strategies.flow.sides import sides_of


def woven(instance: PlacementInstance, flows: Flows) -> IdArray | None:
    """Return slots [L, ep, 1]; None if domains are too few or too small for chains."""
    domain_G = instance.layout.domain_G
    layers, experts = flows.legs // 2, flows.experts
    room, domains = int(np.bincount(domain_G).min()), int(domain_G.max()) + 1
    if not (flows.chained and instance.single) or instance.layout.sets > 1:
        return None
    if -(-layers // room) * experts > domains:
        return None
    rank_N = np.arange(flows.nodes, dtype=np.int64)
    chain_E = np.arange(experts)
    for layer in range(layers):
        if layer % room:
            sent_EE = sides_of(instance, flows, layer, 0)[0].weight_UV
            chain_E = _followed(sent_EE, chain_E)
        for expert, chain in enumerate(chain_E.tolist()):
            domain = layer // room * experts + chain
            gpu = np.flatnonzero(domain_G == domain)[layer % room]
            rank_N[flows.first(layer) + expert] = gpu
    return slots_of(flows, rank_N, 1)


def _followed(sent_EE: IntArray, chain_E: IntArray) -> IntArray:
    """Return the chain of every expert of the next layer."""
    solver = linear_sum_assignment.SimpleLinearSumAssignment()
    before, after = (axis.ravel() for axis in np.indices(sent_EE.shape))
    solver.add_arcs_with_cost(before, after, -sent_EE.ravel())
    if solver.solve() != solver.OPTIMAL:
        return chain_E
    next_E = np.empty_like(chain_E)
    for expert in range(len(chain_E)):
        next_E[solver.right_mate(expert)] = chain_E[expert]
    return next_E
