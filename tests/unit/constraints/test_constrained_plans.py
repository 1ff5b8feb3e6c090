"""Plans under constraints: the best of all that keep them, verified, or refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner import clock
from planner.constraints import read_constraints
from planner.errors import (
    InfeasibleError,
    InputError,
    LimitError,
    UsageError,
    VerificationError,
)
from planner.instance import PlacementInstance
from planner.manifest import Manifest, digest_of_json, manifest_data
from planner.options import SolveOptions
from planner.pipeline.constraining import legal_plan
from planner.pipeline.solving import check_kept
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.judging import judged_layer
from planner.strategies.legal import keeps, moves_by_layer
from planner.strategies.search.sharing import _chosen, _Rung
from planner.verifier import verify_manifest
from tests.instances import instance
from tests.unit.constraints.test_rules import constrained

WORDS: dict[str, Any] = {
    "pins": [{"experts": [1], "at": ["h0/g1"]}],
    "forbidden": [{"experts": [0, 2], "at": ["h1/g0"], "layers": [0]}],
    "apart": [{"by": "host", "experts": [3]}],
}
BEFORE = {
    "gpus": ["h0/g0", "h0/g1", "h1/g0", "h1/g1"],
    "layers": [
        {"layer": layer, "slots": [[0, 1], [1, 2], [2, 3], [3, 0]]} for layer in (0, 1)
    ],
}
Row = tuple[Fraction, int]
"""Value and moves of a layer."""


def legal_layers(made: PlacementInstance, layer: int) -> list[Row]:
    """Return all placements of a layer that keep its rules, by value and moves."""
    assert made.constraints is not None
    rules = made.constraints.layers[layer]
    experts, slots = made.model.experts, made.slots_per_gpu
    found = []
    for held in product(combinations(range(experts), slots), repeat=made.layout.ep):
        slots_GJ = np.asarray(held, dtype=np.int16)
        if len(np.unique(slots_GJ)) == experts and rules.keeps(slots_GJ):
            value, _ = judged_layer(made, layer, slots_GJ, {})
            found.append((value, rules.moves(slots_GJ)))
    return found


def solved(made: PlacementInstance, strategy: str) -> PlacementPlan:
    limits = Limits(seconds=0.3, seed=1, threads=1)
    with clock.counting_work():
        plan = STRATEGIES.get(strategy)(made, limits, legal_plan(made)).plan
    assert keeps(made, plan)
    return plan


def values_of(made: PlacementInstance, plan: PlacementPlan) -> list[Fraction]:
    layers = range(made.layer_count)
    return [judged_layer(made, at, plan.slots_LGJ[at], {})[0] for at in layers]


def value_of(made: PlacementInstance, plan: PlacementPlan) -> Fraction:
    return sum(values_of(made, plan), Fraction(0))


@pytest.mark.parametrize("strategy", ["search", "auto"])
@pytest.mark.parametrize("traffic", ["dedup_domain", "copies"])
def test_the_plan_is_the_best_of_all_that_keep_the_words(
    traffic: str, strategy: str
) -> None:
    """Enumerated: pins, forbidden GPUs and copies apart, in two layers."""
    made = instance([2, 2], experts=4, slots=2, traffic=traffic, layers=2, tokens=60)
    asked = constrained(made, **WORDS)
    best = sum((min(legal_layers(asked, at))[0] for at in (0, 1)), Fraction(0))
    assert value_of(asked, solved(asked, strategy)) == best
    assert best > sum(
        (min(legal_layers(constrained(made), at))[0] for at in (0, 1)), Fraction(0)
    )


@pytest.mark.parametrize("most", [0, 2, 4, 6])
@pytest.mark.parametrize(
    ("mode", "joined"), [("sequential", sum), ("worst_layer", max)]
)
def test_few_moves_go_where_they_are_worth_most(
    most: int, mode: str, joined: Callable[[list[Fraction]], Fraction]
) -> None:
    """Enumerated over both layers: no plan with so few moves is better."""
    made = instance(
        [2, 2], experts=4, slots=2, traffic="copies", layers=2, tokens=60, seed=3
    )
    made = replace(made, objective=replace(made.objective, layers=mode))
    asked = constrained(made, previous=BEFORE, max_moves=most)
    plan = solved(asked, "search")
    assert sum(moves_by_layer(asked, plan)) <= most
    best = min(
        joined([one[0], two[0]])
        for one, two in product(legal_layers(asked, 0), legal_layers(asked, 1))
        if one[1] + two[1] <= most
    )
    assert joined(values_of(asked, plan)) == best


@pytest.mark.parametrize(("worst", "moves"), [(False, [2, 0]), (True, [0, 2])])
def test_moves_are_shared_out_by_what_counts(worst: bool, moves: list[int]) -> None:
    """By hand: two moves take 10 to 1 in one layer, or 12 to 11 in the other."""
    slots_GJ = np.zeros((1, 1), dtype=np.int16)
    tried = [
        [_Rung(0, 10.0, slots_GJ), _Rung(2, 1.0, slots_GJ)],
        [_Rung(0, 12.0, slots_GJ), _Rung(2, 11.0, slots_GJ)],
    ]
    assert [rung.moves for rung in _chosen(tried, 2, worst=worst)] == moves


@pytest.mark.parametrize("strategy", ["contiguous", "eplb_global"])
def test_a_baseline_is_repaired(strategy: str) -> None:
    """As close to what was published as the words allow."""
    made = instance([2, 2], experts=4, slots=2, layers=2, tokens=60)
    solved(constrained(made, **WORDS), strategy)


def test_balance_is_carried_over_and_its_bound_stays() -> None:
    """Counts: ``auto`` bounds without the words and places with them."""
    made = instance(
        [2, 2],
        experts=4,
        slots=2,
        traffic="copies",
        selection="even",
        objective="gpu_tokens",
        counts=[[50, 20, 9, 4]],
    )
    asked = constrained(made, pins=[{"experts": [1, 2], "at": ["h0/g0"]}])
    with clock.counting_work():
        found = STRATEGIES.get("auto")(asked, Limits(seconds=0.5), legal_plan(asked))
    assert keeps(asked, found.plan)
    assert found.bound is not None
    assert found.bound.value <= min(legal_layers(asked, 0))[0]


def test_a_plan_of_another_hand_is_refused() -> None:
    """The last check before a manifest is written."""
    made = constrained(instance([2, 2], experts=4, slots=1), **WORDS | {"apart": []})
    plan = PlacementPlan(
        layer_numbers=(0,), slots_LGJ=np.asarray([[[0], [2], [1], [3]]], dtype=np.int16)
    )
    with pytest.raises(LimitError, match="constraints"):
        check_kept(made, plan)


def test_words_that_contradict_each_other_are_named() -> None:
    """Only those: of four entries the two that cannot both be kept."""
    made = instance([2, 2], experts=4, slots=2)
    asked = constrained(
        made,
        pins=[
            {"experts": [3], "at": ["h0/g0"]},
            {"experts": [1, 2], "at": ["h1/g0"]},
            {"experts": [0], "at": ["h1/g0"]},
        ],
        apart=[{"by": "host"}],
    )
    with pytest.raises(InfeasibleError) as caught:
        legal_plan(asked)
    (cause,) = caught.value.causes
    assert cause.name == "constraints"
    assert cause.numbers["entries"] == ["pins/1", "pins/2"]


def test_too_few_moves_are_infeasible_and_say_how_many_it_takes() -> None:
    """A pin that costs one move; the repair is the number."""
    made = instance([2, 2], experts=4, slots=2, layers=2)
    pins = [{"experts": [0], "at": ["h1/g0"]}]
    asked = constrained(made, pins=pins, previous=BEFORE, max_moves=1)
    with pytest.raises(InfeasibleError, match="need 2 moves") as caught:
        legal_plan(asked)
    (cause,) = caught.value.causes
    assert (cause.name, cause.repairs[0].options) == ("max_moves", {"max_moves": 2})
    again = constrained(made, pins=pins, previous=BEFORE, max_moves=2)
    assert sum(moves_by_layer(again, legal_plan(again)[0])) == 2


FILE = {
    "pins": [{"experts": [3, 7], "at": ["host=n1"]}],
    "forbidden": [{"experts": [0], "at": ["n0/gpu0"], "layers": [1]}],
    "apart": [{"by": "domain", "experts": [5]}],
}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """A plan of the bundled model with redundancy, by a repaired baseline."""
    options = SolveOptions(
        strategy="contiguous", traffic="copies", redundant="8", constraints=FILE
    )
    return planner.solve("toy-2x2", options=options)


def test_the_verifier_reads_the_words_again(manifest: Manifest) -> None:
    """Law: every kind is compared, from the manifest alone."""
    names = {check.name for check in verify_manifest(manifest).checks}
    assert {"pins", "forbidden GPUs", "copies apart"} <= names


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"pins": [{"experts": [20], "at": ["n1/gpu1"]}]}, "no copy on n1/gpu1"),
        ({"forbidden": [{"experts": [5], "at": ["domain=0"]}]}, "a copy on domain=0"),
        ({"apart": [{"by": "host"}]}, "share a host"),
    ],
)
def test_the_verifier_finds_broken_words(
    manifest: Manifest, words: dict[str, Any], says: str
) -> None:
    """Law: a plan that keeps other words is found, whoever made it."""
    moved = {
        "previous": {"gpus": ["n0/gpu0"], "layers": manifest_data(manifest)["layers"]},
        "max_moves": 0,
    }
    for changes, expected in (({"constraints": words}, says), (moved, "experts moved")):
        data = manifest_data(manifest)
        options = data["inputs"]["options"]
        options["values"] |= changes
        options["sha256"] = digest_of_json(options["values"])
        with pytest.raises(VerificationError, match=expected):
            verify_manifest(data)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"strategy": "milp"}, "do not go with --strategy milp"),
        ({"max_moves": 3}, "--previous"),
        ({"traffic": "direct"}, "ties all layers"),
        ({"max_moves": -1, "previous": BEFORE}, "must be >= 0"),
    ],
)
def test_what_does_not_go_with_constraints_is_refused(
    changes: dict[str, Any], reason: str
) -> None:
    """Law: one reason, before anything is planned."""
    with pytest.raises(UsageError, match=reason):
        planner.solve("toy-2x2", options=SolveOptions(constraints=FILE, **changes))


def test_files_are_read_as_toml_or_json(tmp_path: Path) -> None:
    """Both say the same; what is neither is refused with the place."""
    (tmp_path / "c.json").write_text(json.dumps(FILE))
    (tmp_path / "c.toml").write_text('[[apart]]\nby = "domain"\nexperts = [5]\n')
    assert read_constraints(tmp_path / "c.json") == FILE
    assert read_constraints(tmp_path / "c.toml") == {"apart": FILE["apart"]}
    (tmp_path / "bad.toml").write_text("apart = [")
    with pytest.raises(InputError, match="is not TOML"):
        read_constraints(tmp_path / "bad.toml")


def test_plans_count_moves_in_the_manifest(manifest: Manifest) -> None:
    """The earlier plan's slots are recorded; nothing moves where nothing may."""
    previous = manifest_data(manifest)
    options = SolveOptions(
        traffic="copies",
        redundant="8",
        strategy="search",
        previous=previous,
        max_moves=0,
        time_limit=1,
    )
    again = planner.solve("toy-2x2", options=options)
    held = [[set(row) for row in layer.slots] for layer in again.layers]
    assert held == [[set(row) for row in layer.slots] for layer in manifest.layers]
    assert set(again.inputs.options.values["previous"]) == {"gpus", "layers"}
    assert "moves" in {check.name for check in verify_manifest(again).checks}


def test_constraints_do_not_change_what_has_none() -> None:
    """The empty document is the problem without one."""
    made = instance([2, 2], experts=4, slots=2, tokens=60)
    limits = Limits(seconds=0.3, seed=1)
    empty = constrained(made, pins=[])
    with clock.counting_work():
        free = STRATEGIES.get("search")(made, limits).plan
    with clock.counting_work():
        found = STRATEGIES.get("search")(empty, limits).plan
    assert (free.slots_LGJ == found.slots_LGJ).all()
