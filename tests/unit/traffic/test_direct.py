"""Traffic ``direct`` (rules 20 to 22) on a few tokens, computed by hand.

Two domains of two GPUs with one expert each: GPU g holds expert g in layer 0 and
expert 3 - g in layer 1.
"""

from dataclasses import replace

import numpy as np
import pytest

from planner.errors import UsageError
from planner.evaluator import evaluate, layer_loads
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.workload.parts import TokenPart
from tests.instances import instance

SLOTS = np.asarray([[[0], [1], [2], [3]], [[3], [2], [1], [0]]], dtype=np.int16)
PLAN = PlacementPlan(layer_numbers=(0, 1), slots_LGJ=SLOTS)


def problem(choices: list[list[list[int]]], homes: list[int]) -> PlacementInstance:
    """Return an instance whose tokens choose ``choices[layer][token]``."""
    made = instance(
        [2, 2],
        experts=4,
        slots=1,
        traffic="direct",
        layers=len(choices),
        selection="even",
    )
    source_T = np.asarray(homes)
    part = TokenPart(
        experts_LTK=np.asarray(choices, dtype=np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.arange(len(homes)),
        row_T=np.arange(len(homes)),
    )
    return replace(made, workloads=(replace(made.workloads[0], planning=part),))


def moved(made: PlacementInstance) -> list[list[dict[tuple[int, int], int]]]:
    """Return, by layer, dispatch and combine transfers that are not zero."""
    found = evaluate(made, PLAN, made.planning)
    return [
        [
            {(int(s), int(d)): int(leg[s, d]) for s, d in np.argwhere(leg)}
            for leg in (loads.transfers.matrix(), loads.combine.matrix())
        ]
        for loads in found.layers
    ]


def test_a_token_walks_from_best_expert_to_best_expert_and_home() -> None:
    """Home 0; experts 1, 2 on GPUs 1, 2; then experts 0, 1 on GPUs 3, 2."""
    first, second = moved(problem([[[1, 2]], [[0, 1]]], [0]))
    assert first == [{(0, 1): 1, (0, 2): 1}, {(2, 1): 1}]
    assert second == [{(1, 3): 1, (1, 2): 1}, {(2, 3): 1, (3, 0): 1}]


def test_nothing_moves_for_an_expert_where_the_token_stands() -> None:
    """Home 1 and expert 1 on GPU 1, then expert 2 on GPU 1: only the others move."""
    first, second = moved(problem([[[1, 3]], [[2, 3]]], [1]))
    assert first == [{(1, 3): 1}, {(3, 1): 1}]
    assert second == [{(1, 0): 1}, {(0, 1): 1}]


def test_a_token_without_a_best_expert_stays_where_it_is() -> None:
    """Null first choices: dispatch leaves from, and results meet at, the old place."""
    first, second = moved(problem([[[-1, 2]], [[-1, -1]]], [0]))
    assert first == [{(0, 2): 1}, {(2, 0): 1}]
    assert second == [{}, {}]
    first, second = moved(problem([[[3, 0]], [[-1, 0]]], [0]))
    assert first == [{(0, 3): 1}, {(0, 3): 1}]
    assert second == [{}, {(3, 0): 1}]


def test_two_experts_of_one_gpu_are_two_transfers() -> None:
    """Unmerged as in ``copies``: two slots of one GPU cost two of each leg."""
    made = problem([[[0, 1, 2]]], [3])
    slots = np.asarray([[[0, -1], [1, 2], [3, -1], [-1, -1]]], dtype=np.int16)
    plan = PlacementPlan(layer_numbers=(0,), slots_LGJ=slots)
    loads = evaluate(made, plan, made.planning).layers[0]
    assert loads.transfers.matrix()[3].tolist() == [1, 2, 0, 0]
    assert loads.combine.matrix()[1].tolist() == [2, 0, 0, 0]
    assert loads.combine.matrix()[0].tolist() == [0, 0, 0, 1]


def test_bytes_between_domains_count_each_leg_at_its_own_size() -> None:
    """Dispatch 100 and combine 200 bytes: 0→2, 1→3, 1→2 out; 2→1, 3→0 back."""
    made = problem([[[1, 2]], [[0, 1]]], [0])
    found = evaluate(made, PLAN, made.planning)
    assert found.inter_domain_bytes == 3 * 100 + 2 * 200


def test_ordinals_stay_those_of_the_home() -> None:
    """Rule 20: under ``even`` a token hashes its home's ordinal in every layer."""
    made = problem([[[0]] * 3, [[1]] * 3], [0, 0, 0])
    slots = np.asarray([[[0], [1], [2], [3]], [[1], [1], [2], [3]]], dtype=np.int16)
    plan = PlacementPlan(layer_numbers=(0, 1), slots_LGJ=slots)
    loads = evaluate(made, plan, made.planning).layers[1]
    on_second = sum(i * 2654435769 % 2**32 % 2 for i in range(3))
    assert loads.transfers.matrix()[0].tolist() == [0, on_second, 0, 0]


def test_nearest_looks_from_where_the_token_stands() -> None:
    """Home 0, then expert 3 on GPU 3: the copy of expert 0 on GPU 2 is nearer."""
    made = replace(problem([[[3]], [[0]]], [0]), selection="nearest")
    slots = np.asarray([[[0], [1], [2], [3]], [[0], [1], [0], [3]]], dtype=np.int16)
    plan = PlacementPlan(layer_numbers=(0, 1), slots_LGJ=slots)
    loads = evaluate(made, plan, made.planning).layers[1]
    assert {tuple(pair) for pair in np.argwhere(loads.transfers.matrix())} == {(3, 2)}


def test_a_later_layer_cannot_be_judged_alone() -> None:
    """Where tokens stand is decided by the layer before."""
    made = problem([[[1, 2]], [[0, 1]]], [0])
    with pytest.raises(UsageError, match="ties every layer"):
        layer_loads(made, made.planning, 1, SLOTS[1], {})
