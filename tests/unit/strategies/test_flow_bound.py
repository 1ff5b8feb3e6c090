"""The bound of ``direct``: below every placement, tight where nothing can be saved.

Tiny clusters are enumerated; the verifier's checker must prove the same value.
"""

from dataclasses import replace
from fractions import Fraction
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest

from planner.errors import ManifestError
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.pipeline.certifying import certified_bound, certified_layers, evidence
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.flow.bound import flow_bound
from planner.strategies.flow.flows import flows_of
from planner.strategies.flow.matching import together
from planner.strategies.flow.room import Table, applies, kept
from planner.strategies.flow.seat import MIX, Room, between
from planner.verifier.certificates import proven
from planner.verifier.certificates.rooms import Leg
from planner.verifier.certificates.rooms import room as sets_tried
from planner.workload.parts import TokenPart
from tests.instances import instance


def best_of_all(made: PlacementInstance, slots: int) -> float:
    """Return the best value of all placements of four experts per layer."""
    shape = (4 // slots, slots)
    every = {
        tuple(np.sort(np.reshape(order, shape), axis=1).ravel())
        for order in permutations(range(4))
    }
    plans = (
        PlacementPlan(
            layer_numbers=made.model.moe_layers,
            slots_LGJ=np.asarray(chosen, dtype=np.int16).reshape(-1, *shape),
        )
        for chosen in product(sorted(every), repeat=made.layer_count)
    )
    return min(float(evaluate_planning(made, plan).value) for plan in plans)


@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
@pytest.mark.parametrize(
    ("domains", "slots"), [([2, 2], 1), ([1, 1, 1, 1], 1), ([4], 1), ([1, 1], 2)]
)
@pytest.mark.parametrize("top_k", [1, 2])
def test_no_placement_is_below_the_bound(
    objective: str, domains: list[int], slots: int, top_k: int
) -> None:
    """Two layers of four experts, nulls among the choices: every placement."""
    for seed in range(2):
        made = instance(
            domains,
            experts=4,
            slots=slots,
            traffic="direct",
            objective=objective,
            layers=2,
            top_k=top_k,
            tokens=30,
            seed=seed,
        )
        flows = flows_of(made.planning, made.layout, 4)
        bound = flow_bound(made, flows)
        best = best_of_all(made, slots)
        assert bound.value <= best * (1 + 1e-12)
        assert bound.value > 0 or best == 0
        certified = certified_layers(made, bound)
        assert certified is not None
        for each, layer in zip(certified, bound.layers, strict=True):
            assert float(each) == pytest.approx(layer.value, rel=1e-9)


def single(
    domains: list[int], experts: int, *, seed: int, **given: Any
) -> PlacementInstance:
    """Return an instance with one expert per GPU altogether."""
    layers = sum(domains) // experts
    made = instance(
        domains, experts=experts, slots=1, layers=layers, tokens=40, seed=seed, **given
    )
    return replace(made, single=True)


def best_of_single(made: PlacementInstance) -> float:
    """Return the best value of all ways to give every GPU one expert."""
    layers, experts = made.layer_count, made.model.experts
    found = []
    for gpus in permutations(range(layers * experts)):
        slots_LGJ = np.full((layers, layers * experts, 1), -1, dtype=np.int16)
        for layer, expert in product(range(layers), range(experts)):
            slots_LGJ[layer, gpus[layer * experts + expert], 0] = expert
        plan = PlacementPlan(layer_numbers=made.model.moe_layers, slots_LGJ=slots_LGJ)
        found.append(float(evaluate_planning(made, plan).value))
    return min(found)


@pytest.mark.parametrize("traffic", ["direct", "copies"])
@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
@pytest.mark.parametrize(
    ("domains", "experts", "top_k"),
    [([2, 2], 2, 1), ([2, 2], 2, 2), ([3, 3], 3, 2), ([2, 2, 2], 2, 1)],
)
def test_no_single_placement_is_below_the_bound(
    traffic: str, mode: str, domains: list[int], experts: int, top_k: int
) -> None:
    """One expert per GPU altogether: every permutation, and the checker agrees."""
    made = single(domains, experts, seed=3, traffic=traffic, top_k=top_k)
    made = replace(made, objective=replace(made.objective, layers=mode))
    flows = flows_of(made.planning, made.layout, experts, chained=traffic == "direct")
    bound = flow_bound(made, flows)
    best = best_of_single(made)
    assert 0 < bound.value <= best * (1 + 1e-12)
    certified = certified_bound(made, bound)
    assert certified is not None
    assert float(certified) == pytest.approx(bound.value, rel=1e-9)


def test_a_late_start_lifts_the_whole() -> None:
    """Three domains of two, three layers of two experts: one begins later."""
    made = single([2, 2, 2], 2, seed=3, traffic="direct", top_k=1)
    bound = flow_bound(made, flows_of(made.planning, made.layout, 2))
    assert bound.starts
    assert bound.value >= sum(layer.value for layer in bound.layers)
    assert STRATEGIES.get("auto")(made, Limits(seconds=2)).bound == bound


def test_the_heaviest_node_is_better_seated_than_spread() -> None:
    """By hand: expert 0 gets all 30 transfers, from two tails that send 15 each.

    A domain of two: with one tail beside it 15 enter and nothing leaves; alone 30.
    """
    weight_UV = np.asarray([[15, 0], [15, 0]])
    seat = between(weight_UV, Room(2, 2))
    assert Fraction(seat.value, 2 * MIX) == 15


def test_even_walks_over_lone_gpus_are_proven_optimal() -> None:
    """Every (expert, next expert) and (home, expert) alike: the bound is reached."""
    a, b, home = (axis.ravel() for axis in np.indices((4, 4, 4)))
    ids_LTK = np.stack([(a + layer * b) % 4 for layer in range(3)])[:, :, None]
    part = TokenPart(
        experts_LTK=ids_LTK.astype(np.int16),
        source_T=home,
        rank_T=home,
        ordinal_T=np.zeros_like(home),
        row_T=np.arange(home.size),
    )
    made = instance([1] * 4, experts=4, slots=1, traffic="direct", layers=3, top_k=1)
    made = replace(made, workloads=(replace(made.workloads[0], planning=part),))
    flows = flows_of(part, made.layout, 4)
    bound = flow_bound(made, flows)
    slots_LGJ = np.tile(np.arange(4, dtype=np.int16)[None, :, None], (3, 1, 1))
    plan = PlacementPlan(layer_numbers=(0, 1, 2), slots_LGJ=slots_LGJ)
    value = float(evaluate_planning(made, plan).value)
    assert bound.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("rows", "columns", "size"),
    [(1, 1, (4, 4)), (2, 2, (4, 4)), (2, 1, (2, 4)), (0, 0, (3, 3)), (3, 3, (4, 4))],
)
def test_what_meets_is_bounded_by_every_choice_of_pairs(
    rows: int, columns: int, size: tuple[int, int]
) -> None:
    """The transport's value is reached by some 0/1 table that keeps the limits."""
    rng = np.random.default_rng(4)
    for _ in range(5):
        weight_UV = rng.integers(0, 20, size)
        tables = (
            np.reshape(bits, size) for bits in product((0, 1), repeat=size[0] * size[1])
        )
        most = max(
            int((weight_UV * table).sum())
            for table in tables
            if (table.sum(axis=1) <= rows).all()
            and (table.sum(axis=0) <= columns).all()
        )
        assert together(weight_UV, rows, columns).saved == most


def test_multipliers_may_be_any_and_prove_less() -> None:
    """Worse multipliers give a smaller bound, never a larger one; bad shapes none."""
    made = instance([2, 2, 2, 2], experts=4, slots=1, traffic="direct", layers=2, ep=4)
    flows = flows_of(made.planning, made.layout, 4)
    good = flow_bound(made, flows).layers[1]
    assert good.certificate is not None
    seen = evidence(made, 1)
    rng = np.random.default_rng(0)
    for _ in range(20):
        legs = [
            {
                "class": leg["class"],
                **{
                    level: [
                        {
                            name: rng.integers(-5, 40, len(values)).tolist()
                            for name, values in side.items()
                        }
                        for side in leg[level]
                    ]
                    for level in ("gpu", "domain")
                },
            }
            for leg in good.certificate["legs"]
        ]
        assert float(proven({"kind": "walks", "legs": legs}, seen)) <= good.value * (
            1 + 1e-9
        )
    with pytest.raises(ManifestError, match="shape"):
        proven({"kind": "walks", "legs": [{"class": "ib:nic>switch0"}]}, seen)


def test_seats_may_be_any_and_prove_less() -> None:
    """Any anchor and mixes hold: none proves more than the best placement."""
    made = single([2, 2, 2], 2, seed=5, traffic="direct", top_k=2)
    best = best_of_single(made)
    seen = [evidence(made, layer) for layer in range(3)]
    rng = np.random.default_rng(1)
    ports = ["ib:switch0>nic", "ib:nic>switch0"]
    for _ in range(20):
        total = Fraction(0)
        for layer, each in enumerate(seen):
            sides = ["within" if layer == 0 else "tail", "within"]
            legs = [
                {
                    "ports": ports,
                    "side": side,
                    "anchor": int(rng.integers(2)),
                    "mixes": rng.integers(0, 65, 2).tolist(),
                }
                for side in sides
            ]
            total += proven({"kind": "walks", "legs": legs}, each)
        assert float(total) <= best * (1 + 1e-12)
    wrong = {"ports": ports, "side": "within", "anchor": 0, "mixes": [65, 0]}
    with pytest.raises(ManifestError, match="mixes"):
        proven({"kind": "walks", "legs": [wrong, wrong]}, seen[0])


def least_around(anchor: int, tables: list[Table], room: Room) -> int:
    """Return the least cost of a domain with the anchor, by plain enumeration."""
    size = tables[0].entering_U.size
    found = []
    for bits in product((0, 1), repeat=size):
        chosen = [u for u in range(size) if bits[u]]
        if not bits[anchor] or len(chosen) > room.kind:
            continue
        cost = 0
        for table in tables:
            if table.partners_VU is None:
                stays = sum(int(table.inside_UU[u, w]) for u in chosen for w in chosen)
                ends = (table.entering_U, table.leaving_U)
                cost += table.weight * max(
                    sum(int(end[u]) for u in chosen) - stays for end in ends
                )
                continue
            sent = table.partners_VU
            least = []
            for beside in product((0, 1), repeat=len(sent)):
                partners = [v for v in range(len(sent)) if beside[v]]
                if len(partners) > min(room.kind, room.both - len(chosen)):
                    continue
                stays = sum(int(sent[v, u]) for v in partners for u in chosen)
                enters = sum(int(sent[:, u].sum()) for u in chosen)
                leaves = sum(int(sent[v].sum()) for v in partners)
                least.append(max(enters, leaves) - stays)
            cost += table.weight * min(least)
        found.append(cost)
    return min(found)


def drawn_tables(seed: int, size: int) -> list[Table]:
    """Return a leg between layers and one within, weights 3 and 2."""
    rng = np.random.default_rng(seed)
    sent_VU = rng.geometric(0.05, (size, size))
    inside_UU = rng.geometric(0.1, (size, size))
    np.fill_diagonal(inside_UU, 0)
    nothing_UU = np.zeros_like(inside_UU)
    ends = inside_UU.sum(axis=0), inside_UU.sum(axis=1)
    return [
        Table(3, sent_VU.sum(axis=0), nothing_UU[0], nothing_UU, sent_VU),
        Table(2, *ends, inside_UU),
    ]


@pytest.mark.parametrize("room", [Room(2, 2), Room(3, 3), Room(2, 4), Room(5, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_every_set_beside_a_node_is_tried(room: Room, seed: int) -> None:
    """Law: the best anchor's least cost, as the checker and enumeration find it."""
    tables = drawn_tables(seed, 5)
    legs = [
        Leg(
            message=each.weight,
            enters_U=each.entering_U,
            leaves_U=each.leaving_U,
            inside_UU=each.inside_UU,
            table_VU=each.partners_VU,
        )
        for each in tables
    ]
    for chosen in (slice(0, 1), slice(1, 2), slice(0, 2)):
        least_U = [least_around(u, tables[chosen], room) for u in range(5)]
        found = kept(tables[chosen], room)
        assert found.value == max(least_U) == least_U[found.anchor]
        checked = [sets_tried(u, legs[chosen], room.kind, room.both) for u in range(5)]
        assert checked == least_U


def test_too_many_sets_are_left_to_closed_forms() -> None:
    """64 experts, eight to a domain: the checker refuses what the bound never says."""
    assert applies(16, 16, Room(8, 8))
    assert not applies(64, 64, Room(8, 8))
    wide = np.zeros((64, 64), dtype=np.int64)
    leg = Leg(message=1, enters_U=wide[0], leaves_U=wide[0], inside_UU=wide)
    with pytest.raises(ValueError, match="more than 50000 sets"):
        sets_tried(0, [leg], 8, 8)


def test_any_expert_may_be_named_for_both_legs_and_proves_less() -> None:
    """No anchor, whichever is named, proves more than the best placement has."""
    made = single([2, 2, 2], 2, seed=5, traffic="direct", top_k=2)
    best = best_of_single(made)
    ports = ["ib:switch0>nic", "ib:nic>switch0"]
    nothing = {"ports": ports, "side": "within", "anchor": 0, "mixes": [0, 0]}
    for anchors in product(range(2), repeat=3):
        total = Fraction(0)
        for layer, anchor in enumerate(anchors):
            claimed = {"ports": ports, "anchor": anchor}
            first = nothing if layer == 0 else {**claimed, "side": "tail"}
            certificate = {
                "kind": "walks",
                "legs": [first, nothing],
                "together": claimed,
            }
            total += proven(certificate, evidence(made, layer))
        assert 0 < float(total) <= best * (1 + 1e-12)
    certificate["together"] = {"ports": ports, "anchor": 2}
    with pytest.raises(ManifestError, match="anchor"):
        proven(certificate, evidence(made, 2))
