"""Plans with no two experts of a layer in one domain, by flows.

Where nothing but homes can be met in a domain (traffic ``copies``, or hosts of one
GPU) an expert costs what it exchanges with homes elsewhere. For limits of all legs a
maximum flow says whether every expert has a domain within them; the least stretch of
the least conceivable limits is bisected. Where it is 1 the plan reaches the bound.
"""

from typing import NamedTuple

import numpy as np
from ortools.graph.python import max_flow

from planner.arrays import FloatArray, IdArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.flow.flows import Flows, slots_of
from planner.strategies.flow.sides import sides_of, widest_of

STEPS = 12


class _Costs(NamedTuple):
    """What an expert costs in a domain by layer and leg, and the least limits."""

    cost_LQEN: FloatArray
    limit_LQ: FloatArray


def apart(instance: PlacementInstance, flows: Flows) -> IdArray | None:
    """Return slots [L, ep, 1] of one expert per GPU; None if this does not apply."""
    met = flows.chained and widest_of(instance) > 1
    if not instance.single or instance.layout.sets > 1 or met:
        return None
    costs = _costs(instance, flows)
    room_N = np.bincount(instance.layout.domain_G)
    best = None
    low, high = 0.0, 1.0
    for step in range(STEPS):
        stretch = 0.0 if step == 0 else (low + high) / 2
        found = _seated(costs, stretch, room_N)
        if found is None:
            low = stretch
        else:
            best, high = found, stretch
        if high == 0.0:
            break
    return None if best is None else _slots(instance, flows, best)


def _costs(instance: PlacementInstance, flows: Flows) -> _Costs:
    domain_G = instance.layout.domain_G
    domains, layers = int(domain_G.max()) + 1, flows.legs // 2
    cost_LQEN = np.zeros((layers, 2, flows.experts, domains))
    for layer in range(layers):
        for leg in (0, 1):
            weight = {
                s.kind: s.weight_UV for s in sides_of(instance, flows, layer, leg)
            }
            cost_LQEN[layer, leg] = _cost(weight, domain_G, domains)
    return _Costs(cost_LQEN, cost_LQEN.min(axis=3).max(axis=2))


def _cost(
    weight: dict[str, IntArray], domain_G: IntArray, domains: int
) -> FloatArray | IntArray:
    """Return the busier way of every expert alone in every domain, [E, N]."""
    enters_EN = leaves_EN = np.zeros((1, domains), dtype=np.int64)
    for kind in ("between", "within"):
        if kind in weight:
            enters_EN = enters_EN + weight[kind].sum(axis=0)[:, None]
            if kind == "within":
                leaves_EN = leaves_EN + weight[kind].sum(axis=1)[:, None]
    if "out" in weight:
        enters_EN = enters_EN + _elsewhere(weight["out"], domain_G, domains)
    if "home" in weight:
        leaves_EN = leaves_EN + _elsewhere(weight["home"].T, domain_G, domains)
    return np.maximum(enters_EN, leaves_EN)


def _elsewhere(weight_HE: IntArray, domain_G: IntArray, domains: int) -> IntArray:
    """Return what an expert exchanges with homes outside of each domain, [E, N]."""
    mine_NE = np.zeros((domains, weight_HE.shape[1]), dtype=np.int64)
    np.add.at(mine_NE, domain_G[: len(weight_HE)], weight_HE)
    far_EN: IntArray = weight_HE.sum(axis=0)[:, None] - mine_NE.T
    return far_EN


def _seated(costs: _Costs, stretch: float, room_N: IntArray) -> IntArray | None:
    """Return the domain of every expert within the stretched limits, [L, E]."""
    layers, _, experts, domains = costs.cost_LQEN.shape
    limit_LQ = costs.limit_LQ * (1 + stretch)
    fits_LEN = (costs.cost_LQEN <= limit_LQ[:, :, None, None]).all(axis=1)
    expert, domain = np.nonzero(fits_LEN.reshape(-1, domains))
    pair = expert // experts * domains + domain
    solver, one = max_flow.SimpleMaxFlow(), np.int64(1)
    nodes, pairs = layers * experts, layers * domains
    source = nodes + pairs + domains
    arcs = solver.add_arcs_with_capacity(
        expert, nodes + pair, np.full(expert.size, one)
    )
    for node in range(nodes):
        solver.add_arc_with_capacity(source, node, 1)
    for each in range(pairs):
        solver.add_arc_with_capacity(nodes + each, nodes + pairs + each % domains, 1)
    for each, room in enumerate(room_N.tolist()):
        solver.add_arc_with_capacity(nodes + pairs + each, source + 1, room)
    solver.solve(source, source + 1)
    if solver.optimal_flow() < nodes:
        return None
    used = np.asarray(solver.flows(arcs)) > 0
    domain_X = np.empty(nodes, dtype=np.int64)
    domain_X[expert[used]] = domain[used]
    return domain_X.reshape(layers, experts)


def _slots(instance: PlacementInstance, flows: Flows, domain_LE: IntArray) -> IdArray:
    """Give every expert a GPU of its domain."""
    domain_X = domain_LE.ravel()
    order = np.argsort(domain_X, kind="stable")
    first_N = np.searchsorted(domain_X[order], np.arange(int(domain_X.max()) + 1))
    turn = np.arange(order.size) - first_N[domain_X[order]]
    domain_G = instance.layout.domain_G
    gpus_in_order = np.argsort(domain_G, kind="stable")
    start_N = np.searchsorted(domain_G[gpus_in_order], np.arange(domain_G.max() + 1))
    rank_N = np.arange(flows.nodes, dtype=np.int64)
    rank_N[flows.ep + order] = gpus_in_order[start_N[domain_X[order]] + turn]
    return slots_of(flows, rank_N, 1)
