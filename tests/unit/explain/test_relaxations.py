"""What easing one thing is worth, on two GPUs and one network: known by hand."""

from fractions import Fraction

import numpy as np
import pytest

from planner.evaluator import evaluate_planning
from planner.explain.relax import RELAXATIONS, Question
from planner.explain.relax.judged import Outcome, Proof, Resolved, judged
from planner.explain.relax.links import repriced
from planner.explain.relax.slots import with_copies, with_near_copies
from planner.instance import Caps, PlacementInstance
from planner.pipeline.certifying import evidence
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.verifier.certificates import proven
from tests.instances import instance
from tests.unit.explain.test_binding import one_each, two_gpus


def question(
    problem: PlacementInstance, plan: PlacementPlan, **changes: float
) -> Question:
    planning = evaluate_planning(problem, plan)
    return Question(instance=problem, plan=plan, planning=planning, **changes)  # type: ignore[arg-type]


def outcomes(asked: Question, kind: str) -> dict[str, Outcome]:
    found = judged(asked, RELAXATIONS.get(kind)(asked), prover=lambda _: None)
    return {outcome.what: outcome for outcome in found}


def test_a_faster_network_gains_until_pcie_binds() -> None:
    """50 GB/s times 1.1 gains 1/11; twice as fast, PCIe at 64 GB/s binds."""
    little = outcomes(question(two_gpus(), one_each()), "link")
    assert little["all ib links 10% faster"].gain == pytest.approx(1 - 1 / 1.1)
    much = outcomes(question(two_gpus(), one_each(), by=1.0), "link")
    assert much["all ib links 100% faster"].gain == pytest.approx(1 - 50 / 64)


def test_one_of_two_links_in_a_row_gains_nothing() -> None:
    """Both ends of the route carry the same: the other one still binds."""
    found = outcomes(question(two_gpus(), one_each()), "link")
    assert found["h0/n0 <-> leaf 10% faster"].gain == 0
    assert found["nothing relaxed"].gain == 0


def test_speeds_mean_nothing_to_gpu_tokens() -> None:
    """No link is offered."""
    asked = question(two_gpus(objective="gpu_tokens"), one_each())
    assert RELAXATIONS.get("link")(asked) == []


def test_one_more_slot_ends_all_traffic() -> None:
    """With both experts on both GPUs nearest keeps every token at home."""
    problem = two_gpus()
    found = outcomes(question(problem, one_each()), "slots")
    (outcome,) = [each for each in found.values() if each.kind == "slots"]
    assert (outcome.value, outcome.gain) == (0.0, 1.0)
    assert "fits" in outcome.note
    problem.memory_limit_G[0] = 1
    found = outcomes(question(problem, one_each()), "slots")
    short = next(each.note for each in found.values() if each.kind == "slots")
    assert "does not fit: h0/g0 is" in short


def test_a_faster_network_says_what_binds_then() -> None:
    """At 100 GB/s the network is faster than PCIe at 64."""
    found = outcomes(question(two_gpus(), one_each(), by=1.0), "link")
    assert "then pcie:" in found["all ib links 100% faster"].note
    little = outcomes(question(two_gpus(), one_each()), "link")
    assert little["all ib links 10% faster"].note == ""


def test_copies_go_to_the_heaviest_or_to_what_the_domain_lacks() -> None:
    """Loads 6, 3, 2, 1: per copy 0, 0, then 1 and 0 again; domains want what is far."""
    problem = instance(
        [2, 2], experts=4, slots=1, top_k=1, traffic="copies", counts=[[6, 3, 2, 1]]
    )
    plan = PlacementPlan(
        layer_numbers=(0,), slots_LGJ=np.array([[[0], [1], [2], [3]]], np.int16)
    )
    added = with_copies(problem, plan).slots_LGJ[0, :, -1].tolist()
    # GPU 0 holds 0 and takes 1 (3); GPU 1 takes 0 (6); then 0 is 3 and 2 is 2.
    assert added == [1, 0, 0, 0]
    assert with_near_copies(problem, plan) is None
    tokens = instance([2, 2], experts=4, slots=1, top_k=1, traffic="copies", seed=3)
    near = with_near_copies(tokens, plan)
    assert near is not None and not near.has_duplicates()
    held = near.slots_LGJ[0].reshape(2, 4)
    assert [sorted(set(row)) for row in held.tolist()] == [[0, 1, 2, 3]] * 2


def test_no_slot_is_offered_where_every_gpu_holds_all() -> None:
    """Two experts need no third slot."""
    problem = two_gpus(slots=2)
    asked = question(problem, all_everywhere())
    assert RELAXATIONS.get("slots")(asked) == []


def test_another_selection_is_scored_on_the_same_placement() -> None:
    """All copies everywhere: nearest moves nothing, even moves half."""
    problem = two_gpus(slots=2, selection="even")
    found = outcomes(question(problem, all_everywhere()), "selection")
    assert found["selection nearest instead of even"].gain == 1
    # Equal weights are what even does.
    assert found["selection weighted instead of even"].gain == 0
    back = outcomes(
        question(two_gpus(slots=2), all_everywhere()),
        "selection",
    )
    assert back["selection even instead of nearest"].value > 0
    # Weights that say what nearest does keep everything at home.
    assert back["selection weighted instead of nearest"].value == 0


def test_weights_of_tokens_choose_as_nearest_does() -> None:
    """A random trace on four GPUs: the objective is the same to the last bit."""
    problem = instance([2, 2], experts=6, slots=3, traffic="copies", tokens=300)
    slots = np.array([[[0, 1, 2], [3, 4, 5], [0, 2, 4], [1, 3, 5]]], np.int16)
    plan = PlacementPlan(layer_numbers=(0,), slots_LGJ=slots)
    found = outcomes(question(problem, plan), "selection")
    assert found["selection weighted instead of nearest"].gain == 0


def test_each_cap_is_eased_and_lifted() -> None:
    """A step of 0.05, and none; the plan stays and keeps its value."""
    problem = two_gpus(caps=Caps(gpu=1.5, domain=1.6))
    found = RELAXATIONS.get("cap")(question(problem, one_each()))
    assert [(each.what, each.instance.caps) for each in found] == [
        ("imbalance cap 1.55 instead of 1.5", Caps(gpu=1.55, domain=1.6)),
        ("imbalance cap off", Caps(domain=1.6)),
        ("domain imbalance cap 1.65 instead of 1.6", Caps(gpu=1.5, domain=1.65)),
        ("domain imbalance cap off", Caps(gpu=1.5)),
    ]


def test_prices_of_faster_links_prove_the_old_bound_over_the_speed() -> None:
    """Law: with all links 1.1 times as fast the bound is the old one over 1.1."""
    counts = [[9, 5, 3, 2]]
    problem = instance(
        [1, 1], experts=4, slots=2, top_k=1, traffic="copies", counts=counts
    )
    result = STRATEGIES.get("milp")(problem, Limits(seconds=5, threads=1))
    assert result.bound is not None
    given = result.bound.layers[0].certificate
    assert given is not None
    before = proven(given, evidence(problem, 0))
    assert before > 0
    asked = question(problem, result.plan)
    (network,) = [
        each for each in RELAXATIONS.get("link")(asked) if "all ib" in each.what
    ]
    assert network.adapted is not None
    after = proven(network.adapted(given), evidence(network.instance, 0))
    assert float(before / after) == pytest.approx(1.1)
    # The optimum is between the bound and the plan scored again.
    value = evaluate_planning(network.instance, result.plan).value
    assert after <= value * (1 + Fraction(1, 10**9))


def test_only_prices_are_repriced() -> None:
    """Another kind has nothing to do with speeds."""
    certificate = {"kind": "mean_pairs"}
    assert repriced(certificate, {"a"}, Fraction(2)) is certificate


def test_estimates_count_from_what_re_solving_alone_gains() -> None:
    """Law: a longer search is no merit of the relaxation."""
    asked = question(two_gpus(), one_each())
    now = asked.planning.value

    def solver(problem: PlacementInstance, plan: PlacementPlan) -> Resolved:
        better = Fraction(9, 10) if problem is asked.instance else Fraction(8, 10)
        return Resolved(value=now * better, bound=now / 2)

    found = judged(
        asked,
        RELAXATIONS.get("slots")(asked),
        prover=lambda _: Proof(bound=now / 4, by="certificate"),
        solver=solver,
    )
    assert [each.estimate for each in found] == pytest.approx([0.1, 0.1])
    # The tighter of the two bounds is kept, with who says so.
    assert [(each.most, each.bound_by) for each in found] == [(0.5, "solver")] * 2


def all_everywhere() -> PlacementPlan:
    slots = np.array([[[0, 1], [0, 1]]], np.int16)
    return PlacementPlan(layer_numbers=(0,), slots_LGJ=slots)
