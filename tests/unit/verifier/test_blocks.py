"""Certificates of kinds ``covering`` and ``partition`` against every placement."""

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from planner import clock
from planner.errors import ManifestError
from planner.instance import PlacementInstance
from planner.pipeline.certifying import evidence
from planner.strategies.base import STRATEGIES, Limits
from planner.verifier.certificates import proven
from tests import instances
from tests.unit.strategies.balance.free_split import least_load


def counted(
    loads: list[int], gpus: int, slots: int, **changes: Any
) -> PlacementInstance:
    """Return a counts table on hosts of one GPU, ``weighted``, ``gpu_tokens``."""
    given: dict[str, Any] = {
        "traffic": "copies",
        "selection": "weighted",
        "objective": "gpu_tokens",
        **changes,
    }
    return instances.instance(
        [1] * gpus, experts=len(loads), slots=slots, counts=[loads], **given
    )


def test_a_partition_by_hand() -> None:
    """Loads 9, 1, 1, 1 on three GPUs of two slots: K = 1, so the mean is reached.

    On two GPUs K = 2: two blocks of two experts on a GPU each; 9 + 1 = 10 is least.
    """
    instance = counted([9, 1, 1, 1], 2, 2)
    for level, holds in ((10, True), (Fraction(99, 10), True), (11, False)):
        certificate = {"kind": "partition", "level": str(level)}
        expected = level if holds else 0
        assert proven(certificate, evidence(instance, 0)) == expected
    roomy = counted([9, 1, 1, 1], 3, 2)
    certificate = {"kind": "partition", "level": "4/1"}
    assert proven(certificate, evidence(roomy, 0)) == 0


def test_a_covering_by_hand() -> None:
    """Loads 9, 1, 1, 1 on two GPUs, level 9: the heavy expert is in no cover.

    Sizes t - w are 0, 8, 8, 8 and a cover needs 9: at least two of the light ones.
    With n = 0, 1, 1, 1 and N = 2, three is less than K·N = 4.
    """
    instance = counted([9, 1, 1, 1], 2, 2)
    certificate = {
        "kind": "covering",
        "level": "9/1",
        "unit": 2,
        "multipliers": [0, 1, 1, 1],
    }
    assert proven(certificate, evidence(instance, 0)) == 9
    # At 10 the heavy expert and a light one are a cover of 1 < N.
    assert proven({**certificate, "level": "10/1"}, evidence(instance, 0)) == 0
    assert proven({**certificate, "unit": 1}, evidence(instance, 0)) == 0


@pytest.mark.parametrize("seed", range(30))
def test_neither_kind_proves_more_than_is_true(seed: int) -> None:
    """Law: whatever the numbers, nothing above the optimum is proven."""
    rng = np.random.default_rng(seed)
    loads = rng.integers(0, 40, 5).tolist()
    gpus, slots = ((3, 2), (2, 3))[seed % 2]
    best = least_load(loads, gpus, slots)
    if best == 0:
        return
    instance = counted(loads, gpus, slots)
    above = best * Fraction(1001, 1000)
    assert proven({"kind": "partition", "level": str(best)}, evidence(instance, 0)) in (
        0,
        best,
    )
    assert (
        proven({"kind": "partition", "level": str(above)}, evidence(instance, 0)) == 0
    )
    for numbers in itertools.islice(
        itertools.product((-1, 0, 1, 2), repeat=5), 0, 999, 7
    ):
        certificate = {
            "kind": "covering",
            "level": str(above),
            "unit": 1 + seed % 3,
            "multipliers": list(numbers),
        }
        assert proven(certificate, evidence(instance, 0)) == 0


def test_many_experts_are_proven_by_multipliers() -> None:
    """Law: what the search claims of 24 experts on 16 GPUs is proven again."""
    loads = np.random.default_rng(5).geometric(0.02, 24).tolist()
    instance = counted(loads, 16, 2)
    with clock.counting_work():
        result = STRATEGIES.get("balance")(instance, Limits(seconds=5, threads=1))
    assert result.bound is not None
    (layer,) = result.bound.layers
    assert layer.method == "covering"
    assert layer.certificate is not None
    found = proven(layer.certificate, evidence(instance, 0))
    assert float(found) == layer.value > sum(loads) / 16
    broken = [*layer.certificate["multipliers"]]
    lightest = loads.index(min(loads))
    broken[lightest] = 0
    forged = {**layer.certificate, "multipliers": broken}
    assert proven(forged, evidence(instance, 0)) == 0


def test_blocks_of_other_problems_prove_nothing() -> None:
    """Law: one slot per GPU and link objectives have no blocks."""
    covering = {"kind": "covering", "level": "1/1", "unit": 4, "multipliers": [0] * 4}
    partition = {"kind": "partition", "level": "1/1"}
    one = counted([9, 1, 1, 1], 4, 1)
    links = counted([9, 1, 1, 1], 2, 2, objective="link_time")
    for instance in (one, links):
        for certificate in (covering, partition):
            assert proven(certificate, evidence(instance, 0)) == 0
    with pytest.raises(ManifestError, match="covering"):
        proven({"kind": "covering", "level": "1/1"}, evidence(links, 0))
