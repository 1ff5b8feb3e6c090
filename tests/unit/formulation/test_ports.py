"""Rows of links: for every flow they give the evaluator's maxima."""

from typing import Any

import numpy as np
import pytest

from planner.evaluator.layer import LayerLoads
from planner.evaluator.objective import leg_peaks
from planner.formulation.cut.ports import LegRows, ports_of
from planner.instance import Objective, PlacementInstance
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.topology.schema import load_topology
from planner.traffic.copies import transfers_of_pairs
from planner.workload.parts import CountsPart
from tests.oracles.brute_force import random_case
from tests.oracles.tiny_instances import instance_of, tiny_instance


def bundled(name: str, **changes: Any) -> PlacementInstance:
    part = CountsPart(tokens_LE=np.ones((1, 4), dtype=np.int64), top_k=1)
    gpus = load_topology(name).gpu_count
    memory = np.full(gpus, 10**9, dtype=np.int64)
    return tiny_instance(
        name, part, experts=4, slots=1, memory_limit_G=memory, **changes
    )


def by_rows(leg: LegRows, transfers_GG: np.ndarray, level_GG: np.ndarray) -> float:
    """Evaluate a leg's rows on a transfer matrix."""
    gpus = len(transfers_GG)
    levels = range(1, leg.out_RHG.shape[1] + 1)
    at = [np.where(level_GG == level, transfers_GG, 0) for level in levels]
    out_HG = np.stack([part.sum(axis=1) for part in at])
    in_HG = np.stack([part.sum(axis=0) for part in at])
    loads = (leg.out_RHG * out_HG).sum(axis=(1, 2)) + (leg.in_RHG * in_HG).sum(
        axis=(1, 2)
    )
    joint = np.bincount(
        leg.row_Y,
        weights=leg.value_Y * transfers_GG.ravel()[leg.pair_Y],
        minlength=1,
    )
    assert gpus == level_GG.shape[0]
    return leg.weight * max(loads.max(initial=0), joint.max(initial=0))


def check(instance: PlacementInstance, seed: int) -> None:
    """Hold the rows against the evaluator on sparse random flows."""
    rng = np.random.default_rng(seed)
    gpus = instance.layout.gpu_count
    ports = ports_of(instance)
    for density in (0.05, 0.3, 1.0):
        flows = rng.integers(1, 50, size=(gpus, gpus))
        flows[rng.random((gpus, gpus)) > density] = 0
        flows[ports.hierarchy.level_GG < 1] = 0
        pairs = PairCounts.of_matrix(flows)
        moved = transfers_of_pairs(pairs, instance.layout, instance.endpoint)
        loads = LayerLoads(
            pairs_G=flows.sum(axis=0),
            transfers=moved,
            combine=moved.transposed(),
            loads_2A=np.stack(
                [
                    instance.routes.loads(moved),
                    instance.routes.loads(moved.transposed()),
                ]
            ),
            denominator=1,
        )
        exact = leg_peaks(instance, loads, instance.objective.name)
        expected = float(sum(leg.value for leg in exact))
        found = sum(by_rows(leg, flows, ports.hierarchy.level_GG) for leg in ports.legs)
        assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("endpoint", ["local_nic", "pxn", "dest_forward"])
@pytest.mark.parametrize("objective", ["link_time", "link_tokens"])
@pytest.mark.parametrize("name", ["toy-2x2", "h100-4x8-rail"])
def test_rows_give_the_evaluators_value(
    name: str, objective: str, endpoint: str
) -> None:
    """Law: max over rows of any flow = Σ legs max over links of its loads."""
    check(bundled(name, objective=Objective(name=objective), endpoint=endpoint), 1)


@pytest.mark.parametrize("seed", range(40))
def test_rows_hold_on_random_clusters(seed: int) -> None:
    """Law: the same with unequal, lopsided, shared and half-duplex links."""
    check(instance_of(random_case(seed), objective=Objective()), seed)


def test_rows_hold_inside_ep_sets() -> None:
    """Law: with two EP sets flows stay inside, and the shared links add up."""
    domain_G = load_topology("toy-2x2").domain_G
    sets = ParallelLayout(
        domain_G=domain_G, ep=2, attention_groups=tuple((g,) for g in range(4))
    )
    check(bundled("toy-2x2", layout=sets), 5)


def test_equal_legs_share_one_t() -> None:
    """Law: with symmetric links combine takes b_c/b_d times as long as dispatch."""
    (leg,) = ports_of(bundled("h100-4x8-rail", message_bytes=(10, 15))).legs
    assert leg.weight == pytest.approx(2.5)


def test_spines_of_a_rail_fabric_cannot_bind() -> None:
    """Law: a leaf's uplinks carry no more than its NICs deliver: no row is needed."""
    ports = ports_of(bundled("h100-4x8-rail"))
    assert ports.relaxed == ()
    assert all(leg.row_Y.size == 0 for leg in ports.legs)


def test_forwarding_loads_links_that_need_both_ends() -> None:
    """Law: with dest_forward a relay's links depend on rail and domain."""
    ports = ports_of(bundled("toy-2x2", endpoint="dest_forward"))
    assert "n0/gpu0 -> n0/nvs" in ports.relaxed


def test_pods_become_a_level() -> None:
    """Law: under two leaf switches their uplinks split once pods are blocks."""
    objective = Objective(name="link_tokens")
    ports = ports_of(bundled("paper-h100-32x8-hdr", objective=objective))
    assert [ports.hierarchy.count(level) for level in range(4)] == [256, 32, 2, 1]
    assert ports.relaxed == ()


def test_counting_pairs_needs_no_links() -> None:
    """Law: gpu_tokens has no rows of links."""
    assert (
        ports_of(bundled("toy-2x2", objective=Objective(name="gpu_tokens"))).legs == ()
    )
