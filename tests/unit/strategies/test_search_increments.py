"""The search: increments are exact, moves are legal, starts are never lost."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
import pytest

from planner.evaluator import layer_loads, layer_value
from planner.instance import Caps, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.search.anneal import anneal, peak_value
from planner.strategies.search.layer import BALANCE, DOUBLINGS, Knobs, served_state
from planner.strategies.search.network import Network, network_of
from planner.strategies.search.pairs import excess_of
from planner.strategies.search.serving import split_of
from planner.strategies.search.tokens import State, tokens_of
from tests.instances import instance

QUICK = Limits(seconds=0.5, threads=1)
CASES = [
    ([2, 1, 2], "dedup_domain", "nearest", None, 2, None),
    ([2, 2], "dedup_domain", "even", None, 3, None),
    ([2, 2], "dedup_domain", "weighted", None, 3, 2),
    ([2, 1, 2], "dedup_domain", "weighted", None, 2, None),
    ([2, 1], "dedup_gpu", "nearest", None, 3, None),
    ([2, 2], "dedup_gpu", "weighted", "pxn", 2, None),
    ([3, 3], "dedup_gpu", "weighted", None, 4, 3),
    ([2, 2], "dedup_gpu", "even", "dest_forward", 2, None),
    ([2, 2], "copies", "nearest", "dest_forward", 3, None),
    ([2, 3], "dedup_gpu", "nearest", "pxn", 2, None),
    ([1, 3], "copies", "weighted", None, 2, None),
]


def after_random_moves(
    problem: PlacementInstance, moves: int = 600
) -> tuple[Network, State]:
    """Anneal so hot that nearly everything is accepted; return network and state."""
    network, tokens = network_of(problem), tokens_of(problem, 0, copies=8)
    start = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]
    state = served_state(network, tokens, start)
    value = peak_value(network, state.load_X, state.pairs_G)
    best = (start.copy(), state.choice_EH.copy(), value, 0.0)
    knobs = Knobs(moves, 1e9, DOUBLINGS, BALANCE, False)
    anneal(network, tokens, state, best, knobs, np.asarray([7], dtype=np.uint64))
    assert (state.slots_GJ != start).mean() > 0.2
    return network, state


@pytest.mark.parametrize("objective", ["link_time", "link_tokens", "gpu_tokens"])
@pytest.mark.parametrize(
    ("domains", "traffic", "selection", "endpoint", "slots", "ep"), CASES
)
def test_loads_kept_by_increments_are_the_evaluators(
    domains: list[int],
    traffic: str,
    selection: str,
    endpoint: str | None,
    slots: int,
    ep: int | None,
    objective: str,
) -> None:
    """After hundreds of accepted moves the objective and pairs are still exact."""
    problem = instance(
        domains,
        experts=6 if ep is None else 5,
        slots=slots,
        traffic=traffic,
        selection=selection,
        endpoint=endpoint,
        objective=objective,
        ep=ep,
        nic=[50.0, 30.0, 40.0][: len(domains)],
    )
    network, state = after_random_moves(problem)
    split = split_of(network.homes, problem.layout, state.slots_GJ, state.choice_EH)
    exact = layer_value(problem, problem.planning, 0, state.slots_GJ, split)
    found = peak_value(network, state.load_X, state.pairs_G)
    assert found == pytest.approx(float(exact), rel=1e-9)
    loads = layer_loads(problem, problem.planning, 0, state.slots_GJ, split)
    assert state.pairs_G.tolist() == loads.pairs_G.tolist()


def test_moves_keep_slots_legal() -> None:
    """Every expert stays covered, no GPU gets two copies of one."""
    _, state = after_random_moves(instance([2, 2], experts=6, slots=3), 2000)
    assert set(state.slots_GJ.ravel().tolist()) == set(range(6))
    for row in state.slots_GJ:
        assert len(set(row.tolist())) == 3


def legal_placements(experts: int, gpus: int, slots: int) -> Iterator[np.ndarray]:
    """Every way to give each GPU ``slots`` distinct experts that covers them all."""
    rows = list(combinations(range(experts), slots))
    for chosen in product(rows, repeat=gpus):
        if len({expert for row in chosen for expert in row}) == experts:
            yield np.asarray(chosen, dtype=np.int16)


@pytest.mark.parametrize("traffic", ["dedup_domain", "dedup_gpu", "copies"])
def test_tiny_layers_are_solved_to_the_optimum(traffic: str) -> None:
    """Against every placement of 4 experts on 3 GPUs with 2 slots."""
    problem = instance(
        [2, 1], experts=4, slots=2, traffic=traffic, tokens=60, nic=[50.0, 20.0]
    )
    best = min(
        layer_value(problem, problem.planning, 0, slots_GJ, {})
        for slots_GJ in legal_placements(4, 3, 2)
    )
    result = STRATEGIES.get("search")(problem, QUICK)
    found = layer_value(problem, problem.planning, 0, result.plan.slots_LGJ[0], {})
    assert found == best


def test_a_start_is_never_lost() -> None:
    """With no time at all the best start comes back, no worse."""
    problem = instance([2, 2], experts=8, slots=2, layers=3)
    start = published_plan(problem, "eplb_global")
    result = STRATEGIES.get("search")(problem, Limits(seconds=0.0), [start])
    for layer in range(3):
        value = layer_value(
            problem, problem.planning, layer, result.plan.slots_LGJ[layer], {}
        )
        assert value <= layer_value(
            problem, problem.planning, layer, start.slots_LGJ[layer], {}
        )


def test_caps_are_kept_once_they_can_be() -> None:
    """A start beyond the caps is led back; the result keeps both caps."""
    caps = Caps(gpu=1.3, domain=1.1)
    problem = instance([2, 2], experts=16, slots=4, tokens=800, caps=caps)
    result = STRATEGIES.get("search")(problem, QUICK)
    network, tokens = network_of(problem), tokens_of(problem, 0, copies=4)
    state = served_state(network, tokens, result.plan.slots_LGJ[0])
    caps = tokens.pairs.caps
    pairs_M = np.zeros(caps.most_M.size)
    assert excess_of(state.pairs_G, pairs_M, caps) == (0, 0)
