"""Three and more slots: weights prove only what is true; patterns become placements."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.strategies.balance.bound import mean_bound, of_one_set
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.packing import parted
from planner.strategies.balance.patterns import PatternProver, patterns_bound
from planner.strategies.balance.problem import BalanceLayer, counted_layer
from planner.strategies.balance.proof import (
    Farkas,
    Split,
    from_json,
    proves,
    to_json,
)
from planner.strategies.balance.searches import search_of
from planner.strategies.balance.weighing import Weights
from tests.unit.strategies.balance.enumeration import least_load, load_of

Case = tuple[list[int], int, int]


def layer(loads: list[int], gpus: int, slots: int) -> BalanceLayer:
    """Return the layer of a counts table."""
    return counted_layer(np.asarray(loads, dtype=np.int64), gpus, slots)


def crowd() -> BalanceLayer:
    """Return five experts of load 6 and seven of load 1 on four GPUs of three slots.

    Two of load 6 share a GPU with a third expert: 13, though the mean is 37/4.
    """
    return layer([6] * 5 + [1] * 7, 4, 3)


def several_slots() -> st.SearchStrategy[Case]:
    """Return tiny layers of three and four slots: loads, GPUs, slots."""

    def loads(shape: tuple[int, int]) -> st.SearchStrategy[Case]:
        gpus, slots = shape
        most = min(8 if slots == 3 else 7, gpus * slots)
        counts = st.lists(st.integers(0, 60), min_size=slots, max_size=most)
        skewed = counts.map(lambda each: [load**2 for load in each])
        return st.tuples(st.one_of(counts, skewed), st.just(gpus), st.just(slots))

    return st.sampled_from([(2, 3), (3, 3), (2, 4)]).flatmap(loads)


def drawn(seed: int, experts: int, gpus: int, slots: int) -> BalanceLayer:
    """Return a layer of mid size with few spare slots and skewed loads."""
    rng = np.random.default_rng(seed)
    load_E = 1 + (1000 * rng.lognormal(0.0, 1.2 + 0.3 * (seed % 2), experts)).astype(
        np.int64
    )
    return counted_layer(load_E, gpus, slots)


def test_weights_by_hand() -> None:
    """At 12, cells of one: whoever has an expert of load 6 has no other one.

    Weight 1 from cell 6 on: a GPU holds at most 1, four GPUs 4, but there are five.
    """
    by_hand = Weights(grid=12, steps={1: 0, 6: 1})
    assert proves(crowd(), Fraction(12), by_hand)
    assert not proves(crowd(), Fraction(13), by_hand)


def test_a_level_close_to_the_optimum_is_excluded_by_few_weights() -> None:
    """The relaxation finds weights like those by hand."""
    level = Fraction(129, 10)
    proof = PatternProver(crowd()).prove(level)
    assert proof is not None
    assert len(proof.steps) <= 4
    assert mean_bound(crowd()).value < level < 13
    bound = patterns_bound(level, proof)
    assert bound.value == level
    assert proves(crowd(), level, from_json(to_json(proof)))


@given(several_slots())
def test_what_is_excluded_is_below_the_optimum(case: Case) -> None:
    """For any small layer: just below, at, and around the optimum by brute force."""
    loads, gpus, slots = case
    if sum(loads) == 0:
        return
    problem, best = layer(loads, gpus, slots), least_load(loads, gpus, slots)
    prover = PatternProver(problem)
    for share in (Fraction(1, 2), Fraction(9, 10), Fraction(1), Fraction(5, 4)):
        proof = prover.prove(best * share)
        if proof is not None:
            assert share < 1
            assert proves(problem, best * share, proof)


@given(several_slots())
def test_bounds_and_plans_enclose_the_optimum(case: Case) -> None:
    """Whatever the search claims: bound <= optimum <= value, and the value is true."""
    loads, gpus, slots = case
    if sum(loads) == 0:
        return
    best = least_load(loads, gpus, slots)
    found = search_of(layer(loads, gpus, slots), Effort(rounds=3)).work(
        20.0, thorough=True
    )
    assert found.bound.value <= best
    assert load_of(loads, found.slots_GJ.tolist()) >= best
    assert found.value == pytest.approx(float(load_of(loads, found.slots_GJ.tolist())))
    assert all(len(set(row)) == slots for row in found.slots_GJ.tolist())


@pytest.mark.parametrize("seed", range(6))
def test_plans_and_bounds_of_mid_size_meet(seed: int) -> None:
    """Skewed loads, few spare slots: what the mean leaves open is mostly the bound."""
    problem = drawn(seed, 64, 24, 3)
    found = search_of(problem, Effort()).work(60.0, thorough=True)
    assert found.gap < 0.006
    assert proves_again(found.bound.certificate, problem)


def proves_again(certificate: object, problem: BalanceLayer) -> bool:
    """Tell whether a certificate's weights prove its level; True of other kinds."""
    assert isinstance(certificate, dict)
    if certificate["kind"] != "patterns":
        return True
    return proves(problem, Fraction(certificate["level"]), from_json(certificate))


def test_tampered_weights_are_refused() -> None:
    """Another level, a weight gone or too great, a copy without weight."""
    good = Weights(grid=12, steps={1: 0, 6: 1})
    assert proves(crowd(), Fraction(12), good)
    assert not proves(crowd(), Fraction(12), replace(good, steps={}))
    assert not proves(crowd(), Fraction(12), replace(good, steps={1: 0, 5: 0}))
    assert not proves(crowd(), Fraction(12), replace(good, steps={1: 0, 6: 2**70}))
    assert not proves(crowd(), Fraction(12), replace(good, steps={2: 0, 6: 1}))
    assert not proves(crowd(), Fraction(12), replace(good, steps={-1: 0, 6: 1}))
    assert not proves(crowd(), Fraction(12), replace(good, steps={1: 0, 3: 1}))


def test_rows_of_two_slots_say_nothing_of_three() -> None:
    """Multipliers of thresholds are for two slots only."""
    rows = Farkas(rows={Fraction(5): Fraction(1)}, copies=Fraction(0))
    assert not proves(crowd(), Fraction(12), rows)


def test_cases_may_end_in_weights() -> None:
    """A split is proven where both of its cases are."""
    weights = Weights(grid=12, steps={1: 0, 6: 1})
    split = Split(expert=0, at_most=1, low=weights, high=weights)
    assert proves(crowd(), Fraction(12), split)
    assert from_json(to_json(split)) == split


def test_weights_of_a_set_are_those_of_all_sets() -> None:
    """Cells are parts of the level: only the level is divided among EP sets."""
    proof = PatternProver(crowd()).prove(Fraction(12))
    assert proof is not None
    whole = patterns_bound(Fraction(12), proof)
    part = of_one_set(whole, 3)
    assert part.value == 4
    assert whole.certificate is not None
    assert part.certificate == {**whole.certificate, "level": "4/1"}


def test_large_numbers_are_weighed_exactly() -> None:
    """Loads near 2^58, a level that differs in the last digit."""
    heavy = 2**58
    problem = layer([heavy] * 5 + [1] * 7, 4, 3)
    weights = Weights(grid=4096, steps={0: 0, 2048: 1})
    assert proves(problem, Fraction(2 * heavy - 1), weights) is False
    exact = Weights(grid=4096, steps={0: 0, 2049: 1})
    level = Fraction(heavy * 4096, 2049)
    assert proves(problem, level, exact)
    assert not proves(problem, level + 1, exact)


def test_patterns_become_a_placement_within_about_the_level() -> None:
    """At the optimum the crowd is laid out: every expert somewhere, 13 at most."""
    prover = PatternProver(crowd())
    assert prover.prove(Fraction(13)) is None
    found_GJ = prover.place(Fraction(13))
    assert found_GJ is not None
    assert found_GJ.shape == (4, 3)
    assert load_of([6] * 5 + [1] * 7, found_GJ.tolist()) == 13


def test_second_copies_trade_places() -> None:
    """Expert 0 twice on the first GPU: one goes where it raises the load least."""
    slots_GJ = np.asarray([[0, 0, 1], [2, 3, 4], [0, 5, 6]], dtype=np.int16)
    size_E = np.asarray([1.0, 2.0, 9.0, 1.0, 1.0, 5.0, 5.0])
    parted_GJ = parted(slots_GJ, size_E)
    assert parted_GJ is not None
    assert all(len(set(row)) == 3 for row in parted_GJ.tolist())
    assert sorted(parted_GJ.ravel().tolist()) == sorted(slots_GJ.ravel().tolist())
    assert size_E[parted_GJ].sum(axis=1).max() == size_E[slots_GJ].sum(axis=1).max()


def test_what_cannot_be_parted_is_not() -> None:
    """Both GPUs hold expert 0 already."""
    slots_GJ = np.asarray([[0, 0, 1], [0, 1, 2]], dtype=np.int16)
    assert parted(slots_GJ, np.ones(3)) is None
