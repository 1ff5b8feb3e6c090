"""Strategy ``flow``: never worse than a start, loads as the evaluator counts them.

On tiny clusters every placement is enumerated and judged by the evaluator.
"""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from planner.evaluator import evaluate, evaluate_planning
from planner.instance import Caps, PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.flow.board import board_of, state_of
from planner.strategies.flow.flows import flows_of, ranks_of, slots_of
from planner.strategies.flow.kernel import rebuild
from planner.strategies.flow.wires import wires_of
from tests.instances import instance

LIMITS = Limits(seconds=3.0, seed=1)


def random_plan(made: PlacementInstance, seed: int) -> PlacementPlan:
    """Return one copy of each expert, anywhere."""
    rng = np.random.default_rng(seed)
    shape = (made.layout.ep, made.slots_per_gpu)
    slots = [
        rng.permutation(made.model.experts).reshape(shape)
        for _ in range(made.layer_count)
    ]
    return PlacementPlan(
        layer_numbers=made.model.moe_layers,
        slots_LGJ=np.stack(slots).astype(np.int16),
    )


@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
@pytest.mark.parametrize("ep", [4, 2])
def test_loads_are_those_of_the_evaluator(objective: str, mode: str, ep: int) -> None:
    """Edges and wires give the objective of any plan, nulls and EP sets included."""
    made = instance(
        [2, 2],
        experts=8,
        slots=8 // ep,
        traffic="direct",
        objective=objective,
        layers=3,
        top_k=3,
        ep=ep,
        nic=[50, 25],
    )
    made = replace(made, objective=replace(made.objective, layers=mode))
    flows = flows_of(made.planning, made.layout, 8)
    board = board_of(made, flows, wires_of(made))
    for seed in range(4):
        plan = random_plan(made, seed)
        state = state_of(board, flows, plan.slots_LGJ)
        expected = float(evaluate_planning(made, plan).value)
        assert rebuild(board, state) == pytest.approx(expected, rel=1e-12)
        again = slots_of(flows, state.rank_N, made.slots_per_gpu)
        assert ranks_of(flows, again).tolist() == state.rank_N.tolist()
        pairs = [
            loads.pairs_G.tolist()
            for loads in evaluate(made, plan, made.planning).layers
        ]
        assert state.pairs_LG.tolist() == pairs


@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize("nic", [None, [50, 10]])
def test_no_placement_of_a_tiny_cluster_is_better(
    top_k: int, nic: list[float] | None
) -> None:
    """Two layers of four experts on four GPUs: the best of all 24² placements."""
    made = instance(
        [2, 2], experts=4, slots=1, traffic="direct", layers=2, top_k=top_k, nic=nic
    )
    every = [
        np.asarray(order, dtype=np.int16)[:, None] for order in permutations(range(4))
    ]
    best = min(
        evaluate_planning(
            made,
            PlacementPlan(
                layer_numbers=made.model.moe_layers, slots_LGJ=np.stack(slots)
            ),
        ).value
        for slots in product(every, repeat=2)
    )
    result = STRATEGIES.get("auto")(made, LIMITS)
    assert evaluate_planning(made, result.plan).value == best


def test_caps_are_kept_where_a_start_keeps_them() -> None:
    """The cap of what the start reaches is not exceeded by the result."""
    made = instance([2, 2], experts=8, slots=2, traffic="direct", layers=2)
    result = STRATEGIES.get("flow")(made, LIMITS)
    start = random_plan(made, 5)
    cap = float(max(evaluate_planning(made, start).first.gpu_imbalance_L)) + 1e-9
    capped = replace(made, caps=Caps(gpu=cap))
    kept = STRATEGIES.get("flow")(capped, LIMITS, [start])
    found = evaluate_planning(capped, kept.plan)
    assert float(found.imbalance.worst) <= cap
    assert found.value >= evaluate_planning(made, result.plan).value * (1 - 0.05)
    assert found.value <= evaluate_planning(made, start).value


def test_copies_fall_back_to_the_best_baseline_and_say_so() -> None:
    """Walks over several copies are not added up: a baseline and the reason."""
    made = instance([2, 2], experts=4, slots=2, traffic="direct", layers=2)
    result = STRATEGIES.get("flow")(made, LIMITS)
    assert any("several copies" in note for note in result.notes)


def test_pairs_of_gpus_are_balanced_as_without_the_walk() -> None:
    """``gpu_tokens`` sees no walk: ``auto`` proves what it proves for ``copies``."""
    made = instance(
        [2, 2], experts=8, slots=2, traffic="direct", layers=2, objective="gpu_tokens"
    )
    result = STRATEGIES.get("auto")(made, LIMITS)
    assert result.bound is not None
    assert result.bound.value <= float(evaluate_planning(made, result.plan).value)
