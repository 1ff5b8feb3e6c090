"""The search for several workloads: one placement, each on links of its own."""

from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from planner.instance import PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.judging import judged_layer
from planner.strategies.search.anneal import anneal, peak_value
from planner.strategies.search.joint import joint_network
from planner.strategies.search.layer import BALANCE, DOUBLINGS, Knobs, served_state
from planner.strategies.search.serving import split_of
from planner.strategies.search.tokens import tokens_of
from tests.instances import instance
from tests.unit.strategies.test_search_increments import legal_placements


def joint(
    modes: tuple[str, ...],
    combine: str = "mean",
    *,
    domains: tuple[int, ...] = (2, 2),
    selection: str = "even",
    ep: int | None = None,
    nic: tuple[float, ...] = (50.0, 30.0),
    slots: int = 3,
    experts: int = 6,
) -> PlacementInstance:
    """Return workloads of 60, 100, … tokens with one traffic mode each."""
    made = [
        instance(
            list(domains),
            experts=experts,
            slots=slots,
            traffic=mode,
            selection=selection,
            tokens=60 + 40 * number,
            seed=number,
            ep=ep,
            nic=list(nic),
        )
        for number, mode in enumerate(modes)
    ]
    weights = [Fraction(2 * number + 1, len(modes) ** 2) for number in range(len(made))]
    return replace(
        made[0],
        objective=replace(made[0].objective, combine=combine),
        workloads=tuple(
            replace(each.workloads[0], name=f"w{number}", weight=weights[number])
            for number, each in enumerate(made)
        ),
    )


CASES = [
    (("dedup_domain", "dedup_domain"), (2, 2), "nearest", None),
    (("dedup_domain", "dedup_gpu"), (2, 1), "nearest", None),
    (("dedup_domain", "copies"), (2, 2), "even", None),
    (("copies", "dedup_gpu", "copies"), (2, 1), "weighted", None),
    (("copies", "copies"), (2, 2), "nearest", None),
    (("dedup_gpu", "dedup_domain"), (2, 2), "even", 2),
]


@pytest.mark.parametrize(("modes", "domains", "selection", "ep"), CASES)
def test_joint_loads_kept_by_increments_are_the_evaluators(
    modes: tuple[str, ...],
    domains: tuple[int, ...],
    selection: str,
    ep: int | None,
) -> None:
    """After hundreds of accepted moves the weighted mean is still exact."""
    problem = joint(modes, domains=domains, selection=selection, ep=ep)
    network, tokens = joint_network(problem), tokens_of(problem, 0, copies=8)
    start = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]
    state = served_state(network, tokens, start)
    value = peak_value(network, state.load_X, state.pairs_G)
    best = (start.copy(), state.choice_EH.copy(), value, 0.0)
    knobs = Knobs(600, 1e9, DOUBLINGS, BALANCE, False)
    anneal(network, tokens, state, best, knobs, np.asarray([7], dtype=np.uint64))
    assert (state.slots_GJ != start).mean() > 0.2
    split = split_of(network.homes, problem.layout, state.slots_GJ, state.choice_EH)
    exact, _ = judged_layer(problem, 0, state.slots_GJ, split)
    found = peak_value(network, state.load_X, state.pairs_G)
    assert found == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("combine", ["mean", "worst"])
def test_tiny_joint_layers_are_solved_to_the_optimum(combine: str) -> None:
    """Against every placement of 4 experts on 3 GPUs with 2 slots."""
    problem = joint(
        ("dedup_domain", "copies"), combine, domains=(2, 1), slots=2, experts=4
    )
    values = [
        judged_layer(problem, 0, slots_GJ, {})[0]
        for slots_GJ in legal_placements(4, 3, 2)
    ]
    for strategy in ("search", "auto"):
        limits = Limits(seconds=2.0, threads=1)
        result = STRATEGIES.get(strategy)(problem, limits)
        found, _ = judged_layer(problem, 0, result.plan.slots_LGJ[0], {})
        assert found == min(values)
        if strategy == "auto":
            assert result.bound is not None
            assert 0 < result.bound.value <= float(found) * (1 + 1e-9)


def test_caps_hold_for_each_workload() -> None:
    """A plan within the caps of one workload but not of the other is not kept."""
    problem = joint(("dedup_domain", "dedup_gpu"))
    problem = replace(problem, caps=replace(problem.caps, gpu=1.25))
    starts = [
        judged_layer(problem, 0, slots_GJ, {})[1]
        for slots_GJ in islice(legal_placements(6, 4, 3), 0, None, 13)
    ]
    assert min(starts) == 0 < max(starts)
    result = STRATEGIES.get("search")(problem, Limits(seconds=1.0, threads=1))
    assert judged_layer(problem, 0, result.plan.slots_LGJ[0], {})[1] == 0


def test_gpu_load_of_several_workloads_is_left_to_balance() -> None:
    """Law: what the search does not do is said, and the best start comes back."""
    problem = joint(("copies", "copies"))
    problem = replace(problem, objective=replace(problem.objective, name="gpu_tokens"))
    result = STRATEGIES.get("search")(problem, Limits(seconds=0.5, threads=1))
    assert any("balance" in note for note in result.notes)
