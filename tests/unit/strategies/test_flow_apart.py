"""Plans with the experts of a layer apart: within their limits, or none."""

from dataclasses import replace

import numpy as np
import pytest

from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.flow.apart import apart
from planner.strategies.flow.bound import flow_bound
from planner.strategies.flow.flows import Flows, flows_of
from planner.strategies.flow.woven import woven
from planner.workload.parts import TokenPart
from tests.instances import instance


def made_of(domains: list[int], traffic: str, seed: int) -> PlacementInstance:
    """Return four layers of four experts, one expert per GPU altogether."""
    made = instance(
        domains, experts=4, slots=1, layers=4, tokens=400, seed=seed, traffic=traffic
    )
    objective = replace(made.objective, name="link_tokens")
    return replace(made, single=True, objective=objective)


def flows(made: PlacementInstance) -> Flows:
    """Return the walks of its tokens."""
    return flows_of(made.planning, made.layout, 4, chained=made.traffic == "direct")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("domains", "traffic"), [([4] * 4, "copies"), ([1] * 16, "copies")]
)
def test_a_domain_holds_no_two_experts_of_a_layer(
    domains: list[int], traffic: str, seed: int
) -> None:
    """Law: every GPU one expert; where the bound is met, flow stops at once."""
    made = made_of(domains, traffic, seed)
    slots_LGJ = apart(made, flows(made))
    assert slots_LGJ is not None
    assert sorted(np.count_nonzero(slots_LGJ >= 0, axis=(0, 2))) == [1] * 16
    for slots_GJ in slots_LGJ:
        held = np.flatnonzero(slots_GJ[:, 0] >= 0)
        assert len(set(made.layout.domain_G[held].tolist())) == 4
    plan = PlacementPlan(layer_numbers=made.model.moe_layers, slots_LGJ=slots_LGJ)
    value = float(evaluate_planning(made, plan).value)
    assert flow_bound(made, flows(made)).value <= value * (1 + 1e-12)
    found = STRATEGIES.get("flow")(made, Limits(seconds=1))
    assert float(evaluate_planning(made, found.plan).value) <= value


def test_hosts_of_one_gpu_are_proven_optimal() -> None:
    """Law: where links are equal, only homes matter, and they are assigned exactly."""
    made = made_of([1] * 16, "direct", 1)
    part, (workload,) = made.planning, made.workloads
    assert isinstance(part, TokenPart)
    # The bound leaves tokens out that stand where an older layer left them.
    known_T = (part.experts_LTK >= 0).all(axis=(0, 2))
    home_T = part.source_T[known_T]
    part = TokenPart(
        experts_LTK=part.experts_LTK[:, known_T],
        source_T=home_T,
        rank_T=home_T,
        ordinal_T=part.ordinal_T[known_T],
        row_T=part.row_T[known_T],
    )
    made = replace(made, workloads=(replace(workload, planning=part),))
    slots_LGJ = apart(made, flows(made))
    assert slots_LGJ is not None
    plan = PlacementPlan(layer_numbers=made.model.moe_layers, slots_LGJ=slots_LGJ)
    value = float(evaluate_planning(made, plan).value)
    assert value == pytest.approx(flow_bound(made, flows(made)).value, rel=1e-12)
    found = STRATEGIES.get("flow")(made, Limits(seconds=5))
    assert found.reason == "optimal"


def test_walks_that_meet_in_a_domain_are_not_assigned() -> None:
    """Law: none where experts of two layers can spare each other transfers."""
    made = made_of([4] * 4, "direct", 0)
    assert apart(made, flows(made)) is None
    assert apart(replace(made, single=False), flows(made)) is None


def test_chains_keep_the_most_tokens_in_their_domain() -> None:
    """By hand: every token of expert e goes on to e + 1, so chains shift by one."""
    made = made_of([2] * 8, "direct", 0)
    part, (workload,) = made.planning, made.workloads
    assert isinstance(part, TokenPart)
    best_T = np.arange(part.token_count) % 4
    ids_LTK = np.stack([(best_T + layer) % 4 for layer in range(4)])[:, :, None]
    part = replace(part, experts_LTK=ids_LTK.astype(np.int16))
    made = replace(made, workloads=(replace(workload, planning=part),))
    slots_LGJ = woven(made, flows(made))
    assert slots_LGJ is not None
    assert sorted(np.count_nonzero(slots_LGJ >= 0, axis=(0, 2))) == [1] * 16
    for layer in (1, 3):
        for domain in np.unique(made.layout.domain_G):
            held = slots_LGJ[layer - 1 : layer + 1, made.layout.domain_G == domain]
            if (held < 0).all():
                continue
            before, after = (each[each >= 0].item() for each in held)
            assert after == (before + 1) % 4


def test_chains_need_a_domain_each() -> None:
    """Law: none where there are too few domains, or tokens go home."""
    made = made_of([4] * 4, "direct", 0)
    assert woven(made, flows(made)) is not None
    made = made_of([8] * 2, "direct", 0)
    assert woven(made, flows(made)) is None
    made = made_of([4] * 4, "copies", 0)
    assert woven(made, flows(made)) is None
