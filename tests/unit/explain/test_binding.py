"""What binds, on clusters of two GPUs and one network where it can be seen."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from planner.evaluator import evaluate
from planner.explain.binding import layer_bindings, memory_row, peaks_of, prices_of
from planner.instance import Caps, PlacementInstance
from planner.plan import PlacementPlan
from tests.instances import instance

NIC_BYTES_PER_S = 50 * 10**9


def two_gpus(**changes: object) -> PlacementInstance:
    """Two hosts of one GPU: expert 0 has 9 pairs, expert 1 has 3, half per home."""
    given = {"experts": 2, "slots": 1, "top_k": 1, "traffic": "copies"}
    given |= {"counts": [[9, 3]]} | changes
    return instance([1, 1], **given)  # type: ignore[arg-type]


def one_each() -> PlacementPlan:
    return PlacementPlan(layer_numbers=(0,), slots_LGJ=np.array([[[0], [1]]], np.int16))


def test_the_network_binds_in_both_legs() -> None:
    """4.5 pairs leave GPU 1: 100 bytes each way out, 200 back, at 50 GB/s."""
    problem = two_gpus()
    loads = evaluate(problem, one_each(), problem.planning).layers[0]
    out, back = peaks_of(problem, loads)
    assert (out.leg, out.name, out.link_class) == (
        "dispatch",
        "leaf -> h0/n0",
        "ib:switch0>nic",
    )
    assert out.value == pytest.approx(4.5 * 100 / NIC_BYTES_PER_S)
    assert (back.leg, back.name) == ("combine", "h0/n0 -> leaf")
    assert back.value == pytest.approx(4.5 * 200 / NIC_BYTES_PER_S)
    # The next switch port carries the same; PCIe at 64 GB/s is next, 14/64 below.
    assert out.near == back.near == 2
    assert out.spare == pytest.approx(14 / 64)


def test_the_fullest_gpu_binds_gpu_tokens() -> None:
    """GPU 0 computes 9 pairs, GPU 1 three."""
    problem = two_gpus(objective="gpu_tokens")
    evaluation = evaluate(problem, one_each(), problem.planning)
    (layer,) = layer_bindings(evaluation, [(6.0, "mean")], [None])
    assert [(p.name, p.value, p.near) for p in layer.peaks] == [("h0/g0", 9.0, 1)]
    assert layer.peaks[0].spare == pytest.approx(2 / 3)
    assert (layer.value, layer.bound, layer.bound_method) == (9.0, 6.0, "mean")


@pytest.mark.parametrize(("cap", "binds"), [(1.5, True), (1.51, True), (1.6, False)])
def test_a_cap_binds_where_it_is_reached(cap: float, binds: bool) -> None:
    """9 of 12 pairs on one of two GPUs are max/mean 1.5."""
    problem = two_gpus(caps=Caps(gpu=cap))
    evaluation = evaluate(problem, one_each(), problem.planning)
    (layer,) = layer_bindings(evaluation, [None], [None])
    assert [(row.reached, row.binds) for row in layer.caps] == [(1.5, binds)]


def test_memory_binds_where_one_slot_more_does_not_fit() -> None:
    """The fullest GPU has 10^9 bytes free; an expert takes far less."""
    problem = two_gpus()
    row = memory_row(problem)
    assert (row.gpu, row.free_bytes, row.binds) == ("h0/g0", 10**9, False)
    assert row.slot_bytes == problem.model.expert_bytes
    problem.memory_limit_G[1] = row.slot_bytes - 1
    assert (memory_row(problem).gpu, memory_row(problem).binds) == ("h1/g0", True)


def test_memory_says_whether_a_gpu_takes_more_slots_at_all() -> None:
    """Not under a policy of one expert, nor where every expert is held already."""
    problem = two_gpus()
    assert memory_row(problem).grows
    problem.memory_limit_G[1] = 0
    for row in (
        memory_row(problem, one_expert=True),
        memory_row(replace(problem, single=True)),
        memory_row(replace(problem, slots_per_gpu=2)),
    ):
        assert (row.grows, row.binds) == (False, False)


def test_prices_are_read_off_the_certificate() -> None:
    """Links by share; a slot more costs the prices of all ranks; a cap per 0.01."""
    certificate = {
        "kind": "prices",
        "unit": "1/2",
        "links": {"dispatch": {"a": "1/4", "b": "3/4"}, "combine": {}},
        "gpus": [],
        "slots": [3, 5],
        "caps": [{"gpus": [0], "price": 7}],
    }
    found = {p.row: p.amount for p in prices_of(certificate, two_gpus())}
    assert found == {
        "dispatch b": 0.75,
        "dispatch a": 0.25,
        "slot": float(Fraction(8, 2)),
        "cap on h0/g0": pytest.approx(0.035),
    }
    assert prices_of({"kind": "mean_pairs"}, two_gpus()) == []
