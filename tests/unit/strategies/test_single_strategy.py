"""One expert per GPU altogether: the closed form, its certificate, and ``auto``.

Tiny clusters are enumerated: no placement is below the bound, and what is called
optimal is.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.pipeline.certifying import certified_layers, evidence
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from planner.strategies.baselines.base import published_plan
from planner.strategies.single.assign import Board, gpus_of
from planner.verifier.certificates import proven
from tests.instances import instance

MODES = ("copies", "dedup_gpu", "dedup_domain")


def single(
    domains: list[int], experts: int, layers: int, **given: Any
) -> PlacementInstance:
    """Return an instance with one expert per GPU altogether."""
    made = instance(domains, experts=experts, slots=1, layers=layers, **given)
    return replace(made, single=True)


def every_value(made: PlacementInstance) -> list[Fraction]:
    """Return the values of all ways to give the experts GPUs of their own."""
    layers, experts, gpus = made.layer_count, made.model.experts, made.layout.ep
    found = []
    for chosen in permutations(range(gpus), layers * experts):
        slots_LGJ = np.full((layers, gpus, 1), -1, dtype=np.int16)
        for place, gpu in enumerate(chosen):
            slots_LGJ[place // experts, gpu, 0] = place % experts
        plan = PlacementPlan(layer_numbers=made.model.moe_layers, slots_LGJ=slots_LGJ)
        found.append(evaluate_planning(made, plan).value)
    return found


def solved(made: PlacementInstance, name: str = "single") -> SolveResult:
    """Return what a strategy makes of an instance."""
    return STRATEGIES.get(name)(made, Limits(seconds=1.0))


def certified(made: PlacementInstance, result: SolveResult) -> tuple[Fraction, ...]:
    """Return what the verifier's checker proves of every layer."""
    layers = certified_layers(made, result.bound)
    assert layers is not None
    return layers


@pytest.mark.parametrize("traffic", MODES)
@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
@pytest.mark.parametrize(
    ("domains", "endpoint", "nic"),
    [
        ([2, 2], None, None),
        ([3, 2], None, [50.0, 25.0]),
        ([2, 2, 1], "dest_forward", None),
    ],
)
def test_no_placement_is_below_the_bound(
    traffic: str,
    objective: str,
    domains: list[int],
    endpoint: str | None,
    nic: list[float] | None,
) -> None:
    """Two layers of two experts, every placement; the checker proves the same."""
    if traffic == "dedup_gpu" and endpoint:
        endpoint = None
    for seed in range(2):
        made = single(
            domains,
            2,
            2,
            traffic=traffic,
            objective=objective,
            endpoint=endpoint,
            nic=nic,
            tokens=30,
            seed=seed,
        )
        result, best = solved(made), min(every_value(made))
        assert result.bound is not None
        assert 0 < result.bound.value <= float(best) * (1 + 1e-12)
        assert evaluate_planning(made, result.plan).value >= best
        for exact, layer in zip(
            certified(made, result), result.bound.layers, strict=True
        ):
            assert float(exact) == pytest.approx(layer.value, rel=1e-12)


def hot_expert(homes: list[int], traffic: str) -> PlacementInstance:
    """Return an instance on two hosts of two GPUs: one layer of two experts.

    Expert 0 is chosen by one token of every entry of ``homes``, expert 1 by none.
    """
    made = single(
        [2, 2], 2, 1, traffic=traffic, top_k=1, tokens=len(homes), selection="nearest"
    )
    part = made.planning
    source_T = np.asarray(homes)
    chosen = replace(
        part,
        experts_LTK=np.zeros((1, len(homes), 1), dtype=np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.arange(len(homes)),
    )
    return replace(made, workloads=(replace(made.workloads[0], planning=chosen),))


@pytest.mark.parametrize(
    ("traffic", "far"), [("copies", 3), ("dedup_gpu", 3), ("dedup_domain", 2)]
)
def test_the_hot_expert_goes_where_most_of_its_tokens_live(
    traffic: str, far: int
) -> None:
    """By hand: 3 of 9 tokens live on host 0, of GPUs 0, 0 and 1.

    On host 1 the expert's NIC takes in 3 tokens and sends 3 results; forwarded,
    the NIC of rail 0 takes in 2. On host 0 it would be 6, or 4.
    """
    made = hot_expert([0, 0, 1, 2, 2, 2, 2, 3, 3], traffic)
    result = solved(made)
    dispatch, combine = made.message_bytes
    seconds = Fraction(far * (dispatch + combine), 50 * 10**9)
    assert certified(made, result) == (seconds,)
    assert evaluate_planning(made, result.plan).value == seconds
    held_G = result.plan.slots_LGJ[0, :, 0]
    assert 0 in held_G[2:]


def test_the_closed_form_ends_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: where the bound is reached no search runs, and the plan is optimal."""
    made = hot_expert([0, 0, 1, 2, 2, 2, 2, 3, 3], "copies")

    def no_search(*_: object) -> SolveResult:
        raise AssertionError("nothing was left to search")

    found = STRATEGIES.get
    monkeypatch.setattr(
        STRATEGIES, "get", lambda name: no_search if name == "flow" else found(name)
    )
    result = solved(made, "auto")
    assert result.reason == "optimal"
    assert result.layer_strategies == ("single",)
    assert evaluate_planning(made, result.plan).value == min(every_value(made))


@pytest.mark.parametrize("traffic", MODES)
def test_auto_is_no_worse_than_any_baseline(traffic: str) -> None:
    """Law: on five instances, and never below the bound it states."""
    for seed in range(5):
        made = single([3, 3, 3], 4, 2, traffic=traffic, tokens=60, seed=seed)
        result = solved(made, "auto")
        value = evaluate_planning(made, result.plan).value
        for name in ("contiguous", "round_robin"):
            plan = published_plan(made, name)
            assert value <= evaluate_planning(made, plan).value
        assert result.bound is not None
        assert result.bound.value <= float(value) * (1 + 1e-9)
        whole = sum(certified(made, result), Fraction(0))
        assert float(whole) == pytest.approx(result.bound.value, rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"slots_per_gpu": 2, "single": False},
        {"objective": "gpu_tokens"},
        {"traffic": "direct"},
    ],
)
def test_nothing_is_proven_where_an_expert_may_have_two_copies(
    changes: dict[str, Any],
) -> None:
    """Law: the checker relies on what it sees, not on what the plan was made for."""
    seen = evidence(single([2, 2], 2, 2), 0)
    assert proven({"kind": "one_copy"}, seen) > 0
    assert proven({"kind": "one_copy"}, replace(seen, **changes)) == 0


def test_layers_share_out_domains() -> None:
    """By hand: 3 layers of 4 experts on 4 domains of 3: each layer in each once."""
    board = Board(3, 4, np.full(4, 3))
    for layer in range(3):
        board.fill(layer, np.ones((4, 4)))
    board.mend()
    assert all(sorted(row) == [0, 1, 2, 3] for row in board.domain_LE.tolist())
    gpu_LE = gpus_of(board.domain_LE, np.repeat(np.arange(4), 3))
    assert sorted(gpu_LE.ravel().tolist()) == list(range(12))
