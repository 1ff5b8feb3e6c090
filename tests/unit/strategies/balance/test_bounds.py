"""Bounds never exceed the optimum; the closed form attains it; proofs are checked."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.strategies.balance.bound import just_below, mean_bound
from planner.strategies.balance.count import count_bound
from planner.strategies.balance.problem import BalanceLayer, counted_layer
from planner.strategies.balance.proof import (
    Farkas,
    Split,
    all_ranges,
    from_json,
    proves,
    to_json,
)
from planner.strategies.balance.threshold import Prover, threshold_bound
from tests.unit.strategies.balance.enumeration import least_load

TINY = [
    ([7, 3, 2], 2, 2),
    ([10, 1, 1, 1], 3, 2),
    ([5, 5, 4, 1], 3, 2),
    ([9, 8, 1, 1, 1], 4, 2),
    ([30, 7, 7, 5, 2], 4, 2),
    ([4, 4, 4, 4], 2, 3),
    ([12, 5, 3, 3], 2, 3),
    ([6, 0, 0], 2, 2),
]


def layer(loads: list[int], gpus: int, slots: int) -> BalanceLayer:
    """Return the layer of a counts table."""
    return counted_layer(np.asarray(loads, dtype=np.int64), gpus, slots)


def two_slots() -> st.SearchStrategy[tuple[list[int], int]]:
    """Return small layers of two slots: loads and GPUs."""

    def loads(gpus: int) -> st.SearchStrategy[tuple[list[int], int]]:
        counts = st.lists(st.integers(0, 40), min_size=2, max_size=min(5, 2 * gpus))
        return st.tuples(counts, st.just(gpus))

    return st.integers(2, 4).flatmap(loads)


def test_one_slot_by_hand() -> None:
    """Loads 10, 4, 1 on five GPUs: 10/3 and 4/1 are worse than 10/2, 4/2 … by count.

    With copies 3, 1, 1 the largest is 4; no other division of five copies is below.
    """
    bound = count_bound(layer([10, 4, 1], 5, 1))
    assert bound.value == 4
    assert bound.certificate == {"kind": "count", "level": "4/1"}


def test_the_mean_by_hand() -> None:
    """Seven pairs on two GPUs: 7/2."""
    assert mean_bound(layer([4, 2, 1], 2, 2)).value == Fraction(7, 2)


@pytest.mark.parametrize(("loads", "gpus"), [([7, 3, 2], 4), ([9, 9], 5), ([5], 3)])
def test_with_one_slot_the_count_is_the_optimum(loads: list[int], gpus: int) -> None:
    """The least level at which the copies fit is what the best placement makes."""
    assert count_bound(layer(loads, gpus, 1)).value == least_load(loads, gpus, 1)


def test_no_expert_counts_on_more_copies_than_there_are_gpus() -> None:
    """Loads 100 and 1, two GPUs of two slots: both hold both, 50 and no less."""
    problem = layer([100, 1], 2, 2)
    assert problem.most_copies == 2
    assert count_bound(problem).value == 50


@pytest.mark.parametrize(("loads", "gpus", "slots"), TINY)
def test_no_bound_exceeds_the_optimum(loads: list[int], gpus: int, slots: int) -> None:
    """Mean and count, against every placement."""
    problem, best = layer(loads, gpus, slots), least_load(loads, gpus, slots)
    assert mean_bound(problem).value <= best
    assert count_bound(problem).value <= best


@pytest.mark.parametrize(
    ("loads", "gpus"), [(loads, gpus) for loads, gpus, slots in TINY if slots == 2]
)
def test_what_is_proven_of_two_slots_is_true(loads: list[int], gpus: int) -> None:
    """A level is excluded only below the optimum; the optimum itself never is."""
    problem, best = layer(loads, gpus, 2), least_load(loads, gpus, 2)
    for part in range(1, 24):
        level = best * Fraction(part, 20)
        if level <= 0:
            continue
        verdict = Prover(problem).split(level, 40, by_size=part % 2 == 0)
        if verdict.proof is not None:
            assert level < best
            assert proves(problem, level, verdict.proof)


@given(two_slots())
def test_proofs_hold_for_any_small_layer(case: tuple[list[int], int]) -> None:
    """Whatever is excluded just below the optimum and at it, only the former is."""
    loads, gpus = case
    if sum(loads) == 0:
        return
    problem, best = layer(loads, gpus, 2), least_load(loads, gpus, 2)
    assert Prover(problem).split(best, 20, by_size=True).proof is None
    below = just_below(best)
    verdict = Prover(problem).split(below, 20, by_size=False)
    if verdict.proof is not None:
        bound = threshold_bound(below, verdict.proof)
        assert bound.value < best <= bound.value * (1 + Fraction(1, 10**9))


def proven() -> tuple[BalanceLayer, Fraction, Farkas]:
    """Return a layer, a level and multipliers that exclude it.

    Six experts of load 4 and two of load 1 on four GPUs: two of load 4 must share a
    GPU, so 8 is the optimum, though the mean is 6.5.
    """
    problem = layer([4, 4, 4, 4, 4, 4, 1, 1], 4, 2)
    level = just_below(Fraction(8))
    proof = Prover(problem).root(level).proof
    assert isinstance(proof, Farkas)
    return problem, level, proof


def test_a_proof_by_hand() -> None:
    """At 7, an item of 4 needs a partner of at most 3: six of one, two of the other."""
    problem = layer([4, 4, 4, 4, 4, 4, 1, 1], 4, 2)
    by_hand = Farkas(rows={Fraction(3): Fraction(1)}, copies=Fraction(0))
    assert proves(problem, Fraction(7), by_hand)
    assert not proves(problem, Fraction(8), by_hand)


def test_a_tampered_proof_is_refused() -> None:
    """Another level, no multipliers, a negative one, or s out of range."""
    problem, level, proof = proven()
    assert proves(problem, level, proof)
    s, y = next(iter(proof.rows.items()))
    assert not proves(problem, Fraction(8), proof)
    assert not proves(problem, level, Farkas(rows={}, copies=proof.copies))
    assert not proves(problem, level, Farkas(rows={s: -y}, copies=proof.copies))
    assert not proves(problem, level, Farkas(rows={level: y}, copies=proof.copies))


def test_the_price_of_a_copy_matters_where_copies_are_to_spare() -> None:
    """Ten slots for seven experts: the rows alone prove nothing at any other price."""
    problem = layer([40, 40, 40, 40, 40, 9, 1], 5, 2)
    best = least_load([40, 40, 40, 40, 40, 9, 1], 5, 2)
    proof = Prover(problem).root(just_below(best)).proof
    assert isinstance(proof, Farkas)
    for shift in (-50, 50):
        moved = Farkas(rows=proof.rows, copies=proof.copies + shift)
        assert not proves(problem, just_below(best), moved)


def test_a_split_that_leaves_out_a_case_is_refused() -> None:
    """Both cases need a proof of their own."""
    problem = layer([4, 4, 4, 4, 4, 4, 1, 1], 4, 2)
    never = Farkas(rows={}, copies=Fraction(0))
    split = Split(expert=0, at_most=0, low=never, high=never)
    assert not proves(problem, Fraction(9), split)
    assert proves(problem, Fraction(9), never, all_ranges(problem).split(0, 0)[0])


def test_a_proof_survives_json() -> None:
    """What is written is what is read."""
    problem, level, proof = proven()
    split = Split(expert=2, at_most=1, low=proof, high=proof)
    assert from_json(to_json(split)) == split
    assert proves(problem, level, from_json(to_json(proof)))


def test_large_numbers_are_compared_exactly() -> None:
    """Sizes near 2^60 with a level that differs in the last digit."""
    heavy = 2**58
    problem = layer([heavy] * 6 + [1, 1], 4, 2)
    optimum = Fraction(2 * heavy)
    hand = Farkas(rows={heavy - Fraction(1, 2): Fraction(1)}, copies=Fraction(0))
    assert proves(problem, optimum - Fraction(1, 2), hand)
    assert not proves(problem, optimum, hand)
