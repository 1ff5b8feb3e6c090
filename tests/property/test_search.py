"""Laws of the search: its increments are the evaluator, its moves are legal."""

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import ceil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.evaluator import layer_loads, layer_value
from planner.instance import Caps, PlacementInstance
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.search.anneal import anneal, peak_value
from planner.strategies.search.layer import (
    Knobs,
    Placed,
    problem_of,
    search_layer,
    served_state,
)
from planner.strategies.search.network import Network, network_of
from planner.strategies.search.serving import homes_of, split_of
from planner.strategies.search.tokens import State, tokens_of
from planner.workload.parts import TokenPart
from tests.instances import instance

SHAPES = [([2, 1], None), ([2, 2], None), ([3, 1, 2], None), ([2, 2], 2), ([1, 3], 2)]
MODES = [
    ("dedup_domain", None),
    ("dedup_gpu", None),
    ("dedup_gpu", "dest_forward"),
    ("copies", None),
    ("copies", "dest_forward"),
    ("copies", "pxn"),
]
KINDS = list(
    product(
        SHAPES, MODES, ["nearest", "even", "weighted"], ["link_time", "link_tokens"]
    )
)
SLOW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def small(kind: tuple, extra: int, seed: int) -> PlacementInstance:
    """Return an instance of this kind with ``extra`` redundant slots or more."""
    (domains, ep), (traffic, endpoint), selection, objective = kind
    ranks = ep or sum(domains)
    slots = -(-(5 + extra) // ranks)
    return instance(
        domains,
        experts=max(5, slots),
        slots=slots,
        traffic=traffic,
        selection=selection,
        endpoint=endpoint,
        objective=objective,
        ep=ep,
        top_k=3,
        nic=[50.0, 30.0, 40.0][: len(domains)],
        seed=seed,
    )


def after_moves(
    problem: PlacementInstance, moves: int, seed: int, *, varied: bool = True
) -> tuple[Network, State]:
    """Return the state after moves so hot that nearly all legal ones are taken.

    ``varied`` asks that more than one state was met on the way.
    """
    network = network_of(problem)
    start_GJ = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]
    tokens = tokens_of(problem, 0, int(np.bincount(start_GJ.ravel()).max()))
    state = served_state(network, tokens, start_GJ)
    random_1 = np.asarray([seed + 1], dtype=np.uint64)
    best = (start_GJ.copy(), state.choice_EH.copy(), np.inf, 0.0)
    knobs, met = Knobs(moves // 20, 1e6, 4, 0.1, False), set()
    for _ in range(20):
        anneal(network, tokens, state, best, knobs, random_1)
        met.add(state.slots_GJ.tobytes())
    # Where every GPU holds every expert there is no move to make.
    full = problem.slots_per_gpu == problem.model.experts
    assert len(met) > 1 or full or not varied
    return network, state


@SLOW
@given(kind=st.sampled_from(KINDS), extra=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_loads_kept_by_increments_are_the_evaluators(
    kind: tuple, extra: int, seed: int
) -> None:
    """After thousands of random moves value and pairs are those of a fresh count."""
    problem = small(kind, extra, seed)
    network, state = after_moves(problem, 3000, seed)
    split = split_of(network.homes, problem.layout, state.slots_GJ, state.choice_EH)
    loads = layer_loads(problem, problem.planning, 0, state.slots_GJ, split)
    assert state.pairs_G.tolist() == loads.pairs_G.tolist()
    exact = layer_value(problem, problem.planning, 0, state.slots_GJ, split)
    value = peak_value(network, state.load_X, state.pairs_G)
    assert value == pytest.approx(float(exact), rel=1e-9, abs=1e-18)


@SLOW
@given(kind=st.sampled_from(KINDS), extra=st.integers(0, 4), seed=st.integers(0, 2**32))
def test_moves_keep_slots_legal(kind: tuple, extra: int, seed: int) -> None:
    """Every expert stays covered, every slot filled, no GPU has two copies of one."""
    problem = small(kind, extra, seed)
    _, state = after_moves(problem, 500, seed)
    assert set(state.slots_GJ.ravel().tolist()) == set(range(problem.model.experts))
    for row in state.slots_GJ:
        assert len(set(row.tolist())) == row.size


@SLOW
@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 2**32))
def test_a_state_within_the_caps_stays_within_them(kind: tuple, seed: int) -> None:
    """However hot, no move breaks a cap; the start's own figures are the caps."""
    problem = small(kind, 3, seed)
    start_GJ = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]

    def figures(state: State) -> tuple[Fraction, Fraction]:
        slots_GJ, homes = state.slots_GJ, homes_of(problem)
        split = split_of(homes, problem.layout, slots_GJ, state.choice_EH)
        pairs_G = layer_loads(problem, problem.planning, 0, slots_GJ, split).pairs_G
        domains = problem.topology.domains
        busiest = max(
            Fraction(int(pairs_G[list(gpus)].sum()), len(gpus)) for gpus in domains
        )
        mean = Fraction(int(pairs_G.sum()), pairs_G.size)
        return int(pairs_G.max()) / mean, busiest / mean

    tokens = tokens_of(problem, 0, int(np.bincount(start_GJ.ravel()).max()))
    gpu, domain = figures(served_state(network_of(problem), tokens, start_GJ))
    # Rounded up to decimals, as caps are given.
    caps = Caps(gpu=ceil(gpu * 100) / 100, domain=ceil(domain * 100) / 100)
    problem = replace(problem, caps=caps)
    _, state = after_moves(problem, 2000, seed, varied=False)
    found = figures(state)
    assert found[0] <= Fraction(str(caps.gpu))
    assert found[1] <= Fraction(str(caps.domain))


@SLOW
@given(kind=st.sampled_from(KINDS), slots=st.integers(1, 3), seed=st.integers(0, 2**32))
def test_relabelling_experts_relabels_what_is_found(
    kind: tuple, slots: int, seed: int
) -> None:
    """Other names for experts, same start, same seed: the same value is reached.

    With one copy of each: a redundant slot's new expert is drawn by its number, and
    rule 17 looks at numbers where there are copies.
    """
    (domains, ep), (traffic, endpoint), selection, objective = kind
    experts = slots * (ep or sum(domains))
    problem = instance(
        domains,
        experts=experts,
        slots=slots,
        traffic=traffic,
        selection=selection,
        endpoint=endpoint,
        objective=objective,
        ep=ep,
        top_k=min(3, experts),
        seed=seed,
    )
    part = problem.planning
    assert isinstance(part, TokenPart)
    rng = np.random.default_rng(seed)
    name_E = rng.permutation(experts).astype(np.int16)
    ids = part.experts_LTK
    renamed = replace(part, experts_LTK=np.where(ids < 0, ids, name_E[ids]))
    start_GJ = published_plan(problem, "contiguous").slots_LGJ[0]
    reached = []
    for tokens, slots_GJ in ((part, start_GJ), (renamed, name_E[start_GJ])):
        (workload,) = problem.workloads
        again = replace(problem, workloads=(replace(workload, planning=tokens),))
        found = search_layer(
            problem_of(again),
            0,
            Placed(slots_GJ, {}),
            seconds=60.0,
            seed=seed % 1000,
            most_proposals=2000,
        )
        reached.append(layer_value(again, tokens, 0, *found.placed))
    assert reached[0] == reached[1]
