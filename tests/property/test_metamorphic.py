"""What must hold between two runs on inputs that differ in a known way.

Optima are those of ``milp`` with a bound that meets them, on the random tiny clusters
of ``tests/oracles/brute_force.py``; loads are the evaluator's.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.errors import InfeasibleError
from planner.evaluator import evaluate, evaluate_planning
from planner.instance import Caps, PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies import base
from planner.workload.parts import TokenPart
from tests.instances import instance
from tests.oracles.brute_force import EXPERT_BYTES, Case, random_case
from tests.oracles.tiny_instances import instance_of

SEEDS = (2, 5, 11, 17)
NEAR = 1e-6


def optimum(case: Case, **changes: Any) -> float:
    """Return the optimum of a case, proven to ``NEAR``."""
    problem = instance_of(case, **changes)
    with clock.counting_work():
        limits = base.Limits(seconds=60, threads=1)
        result = base.STRATEGIES.get("milp")(problem, limits)
    value = float(evaluate(problem, result.plan, problem.planning).value)
    assert result.bound is not None
    assert result.bound.value >= value * (1 - NEAR)
    return value


def feasible(seed: int) -> Case:
    """Return a random case that has a plan."""
    case = random_case(seed)
    need = case.slots * EXPERT_BYTES + 10 * EXPERT_BYTES
    while case.slots * len(case.gpus) < len(case.counts):
        case = replace(case, slots=case.slots + 1)
    return with_memory(case, need)


def with_memory(case: Case, memory: int) -> Case:
    """Return the case with so many bytes on every GPU."""
    nodes = [
        {**node, "memory_bytes": memory} if node["kind"] == "gpu" else node
        for node in case.topology["nodes"]
    ]
    topology = {**case.topology, "nodes": nodes}
    return replace(case, topology=topology, memory=(memory,) * len(case.memory))


def with_widths(case: Case, wider: Callable[[str], float]) -> Case:
    """Return the case with every edge's and group's bandwidth multiplied."""
    graph = case.topology["graph"]
    groups = {
        name: {**group, "bandwidth_gbs": group["bandwidth_gbs"] * wider(name)}
        for name, group in graph["capacity_groups"].items()
    }
    edges = [
        {
            **edge,
            "bandwidth_gbs": edge["bandwidth_gbs"]
            * wider(
                edge.get("capacity_group", f"{edge['source']}>{edge['target']}"),
            ),
        }
        for edge in case.topology["edges"]
    ]
    changed = {**graph, "capacity_groups": groups}
    return replace(case, topology={**case.topology, "graph": changed, "edges": edges})


@pytest.mark.parametrize("seed", SEEDS)
def test_names_and_order_of_experts_and_gpus_do_not_matter(seed: int) -> None:
    """Law: with experts, nodes and edges shuffled the optimum is the same."""
    case, rng = feasible(seed), random.Random(seed)
    counts, nodes = list(case.counts), list(case.topology["nodes"])
    edges = list(case.topology["edges"])
    for each in (counts, nodes, edges):
        rng.shuffle(each)
    topology = {**case.topology, "nodes": nodes, "edges": edges}
    other = replace(case, topology=topology, counts=tuple(counts))
    assert optimum(other) == pytest.approx(optimum(case), rel=2 * NEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_traffic_times_k_takes_k_times_as_long(seed: int) -> None:
    """Law: every objective is linear in the counts."""
    case = feasible(seed)
    more = replace(case, counts=tuple(3 * count for count in case.counts))
    assert optimum(more) == pytest.approx(3 * optimum(case), rel=2 * NEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_bandwidth_times_c_takes_one_cth_of_the_time(seed: int) -> None:
    """Law: only seconds depend on bandwidths, and inversely."""
    case = feasible(seed)
    faster = with_widths(case, lambda name: 4.0)
    factor = 4.0 if case.objective == "link_time" else 1.0
    assert optimum(case) == pytest.approx(factor * optimum(faster), rel=2 * NEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_wider_link_is_never_worse_and_a_narrower_never_better(seed: int) -> None:
    """Law: more of any one link can only help."""
    case = replace(feasible(seed), objective="link_time")
    free = optimum(case)
    for edge in case.topology["edges"][:: max(1, len(case.topology["edges"]) // 3)]:
        of = edge.get("capacity_group", f"{edge['source']}>{edge['target']}")
        for factor, sign in ((2.0, 1), (0.5, -1)):
            changed = with_widths(
                case, lambda name, of=of, by=factor: by if name == of else 1.0
            )
            assert sign * (free - optimum(changed)) >= -2 * NEAR * free


@pytest.mark.parametrize("seed", SEEDS)
def test_one_more_slot_is_never_worse(seed: int) -> None:
    """Law: a copy need not be used (``weighted``)."""
    case = feasible(seed)
    if case.slots == len(case.counts):
        case = replace(case, slots=case.slots - 1)
    more = replace(case, slots=case.slots + 1)
    assert optimum(more) <= optimum(case) * (1 + 2 * NEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_less_memory_is_never_better(seed: int) -> None:
    """Law: memory that no slot needs changes nothing; less than they need, no plan."""
    case = feasible(seed)
    need = int(instance_of(case).memory_bytes_G.max())
    assert optimum(with_memory(case, need)) == optimum(case)
    with pytest.raises(InfeasibleError):
        optimum(with_memory(case, need - 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cap_is_never_better_and_a_looser_one_never_worse(seed: int) -> None:
    """Law: what may be done under a cap may be done under a looser one."""
    case = feasible(seed)
    values = [optimum(case)]
    for cap in (3.0, 2.0, 1.6):
        try:
            values.append(optimum(case, caps=Caps(gpu=cap)))
        except InfeasibleError:
            values.append(float("inf"))
    for looser, tighter in pairwise(values):
        assert looser <= tighter * (1 + 2 * NEAR)


@pytest.mark.parametrize("seed", SEEDS)
def test_two_workloads_in_one_are_between_either_and_both_apart(seed: int) -> None:
    """Law: more tokens are never better; in turn they take no less than together."""
    case, rng = feasible(seed), random.Random(seed)
    extra = tuple(rng.randrange(0, 60) for _ in case.counts)
    both = tuple(a + b for a, b in zip(case.counts, extra, strict=True))
    together = optimum(replace(case, counts=both))
    alone = [optimum(case), optimum(replace(case, counts=extra))]
    assert max(alone) <= together * (1 + 2 * NEAR)


def random_plan(problem: PlacementInstance, seed: int) -> PlacementPlan:
    """Return a plan of single copies at random places."""
    rng = np.random.default_rng(seed)
    layers, experts = problem.layer_count, problem.model.experts
    shape = (problem.layout.ep, problem.slots_per_gpu)
    slots = [rng.permutation(experts).reshape(shape) for _ in range(layers)]
    return PlacementPlan(
        layer_numbers=problem.model.moe_layers,
        slots_LGJ=np.stack(slots).astype(np.int16),
    )


def changed_tokens(
    problem: PlacementInstance, **fields: IntArray | IdArray
) -> PlacementInstance:
    """Return the instance with other arrays in its tokens."""
    (load,), part = problem.workloads, problem.planning
    assert isinstance(part, TokenPart)
    planning = replace(part, **fields)  # type: ignore[arg-type]
    return replace(problem, workloads=(replace(load, planning=planning),))


def all_values(problem: PlacementInstance, plan: PlacementPlan) -> list[Fraction]:
    """Return all nine values of a plan."""
    found = evaluate_planning(problem, plan).values
    return [value for modes in found.values() for value in modes.values()]


TRAFFIC = ("copies", "dedup_gpu", "dedup_domain")


def tokens_of(problem: PlacementInstance) -> TokenPart:
    """Return the planning part."""
    part = problem.planning
    assert isinstance(part, TokenPart)
    return part


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("seed", range(3))
def test_every_token_twice_doubles_every_value(traffic: str, seed: int) -> None:
    """Law: loads are sums over tokens, however transfers merge."""
    problem = instance([2, 2], experts=8, slots=2, traffic=traffic, layers=2, seed=seed)
    part, plan = tokens_of(problem), random_plan(problem, seed)
    twice = changed_tokens(
        problem,
        experts_LTK=np.concatenate([part.experts_LTK] * 2, axis=1),
        source_T=np.concatenate([part.source_T] * 2),
        rank_T=np.concatenate([part.rank_T] * 2),
        ordinal_T=np.concatenate([part.ordinal_T, part.ordinal_T]),
        row_T=np.arange(2 * part.row_T.size),
    )
    doubled = [2 * value for value in all_values(problem, plan)]
    assert all_values(twice, plan) == doubled


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("seed", range(3))
def test_new_names_for_experts_change_no_value(traffic: str, seed: int) -> None:
    """Law: a permutation of ids in trace and plan alike is none at all."""
    problem = instance([2, 2], experts=8, slots=2, traffic=traffic, seed=seed)
    part, plan = tokens_of(problem), random_plan(problem, seed)
    name_E = np.random.default_rng(seed + 100).permutation(8)
    with_none = np.append(name_E, -1)
    renamed = changed_tokens(problem, experts_LTK=with_none[part.experts_LTK])
    other = replace(plan, slots_LGJ=name_E[plan.slots_LGJ].astype(np.int16))
    assert all_values(renamed, other) == all_values(problem, plan)


@pytest.mark.parametrize("traffic", TRAFFIC)
@pytest.mark.parametrize("seed", range(3))
def test_domains_that_are_alike_can_change_places(traffic: str, seed: int) -> None:
    """Law: homes and slots of two equal domains exchanged, every value stays."""
    problem = instance([2, 2], experts=8, slots=2, traffic=traffic, seed=seed)
    part, plan = tokens_of(problem), random_plan(problem, seed)
    place_G = np.asarray([2, 3, 0, 1])
    moved = changed_tokens(
        problem, source_T=place_G[part.source_T], rank_T=place_G[part.rank_T]
    )
    other = replace(plan, slots_LGJ=plan.slots_LGJ[:, place_G])
    assert all_values(moved, other) == all_values(problem, plan)


@pytest.mark.parametrize("traffic", TRAFFIC)
def test_merging_moves_no_more_than_copies_do(traffic: str) -> None:
    """Law: what leaves a domain is cut traffic: most under ``copies``."""
    plain = instance([2, 2], experts=8, slots=2, traffic="copies", top_k=3)
    merged = instance([2, 2], experts=8, slots=2, traffic=traffic, top_k=3)
    plan = random_plan(plain, 1)
    crossing = []
    for problem in (merged, plain):
        loads = evaluate(problem, plan, problem.planning).layers[0]
        domain_G = problem.layout.domain_G
        crossing.append(loads.transfers.between(domain_G))
    assert crossing[0] <= crossing[1]
