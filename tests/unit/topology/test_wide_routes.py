"""Routes that are looked up by leaf are the routes that are written out by pair."""

from typing import Any

import numpy as np
import pytest

from planner.pair_counts import PairCounts
from planner.topology.graph import ClusterTopology
from planner.topology.paths import build_routes, wide_routes
from planner.topology.schema import load_topology

RAIL: dict[str, Any] = {
    "kind": "rail_fat_tree",
    "gpus_per_node": 8,
    "profile": "x",
    "nvlink": {"bandwidth_gbs": 450},
    "pcie_gbs": 64,
    "nic_gbs": 50,
}
THREE_TIERS = RAIL | {
    "nodes": 8,
    "gpus_per_node": 2,
    "su_nodes": 2,
    "spines": 2,
    "uplink_cables": 2,
    "tiers": 3,
    "pod_su": 2,
    "cores": 4,
}


def generated(name: str, generator: dict[str, Any]) -> ClusterTopology:
    """The cluster of a generator."""
    profiles = {"x": {"memory_bytes": 10**11}}
    return load_topology(
        {
            "schema": "moe-topology/1",
            "graph": {"name": name, "profiles": profiles},
            "generator": generator,
        }
    )


CLUSTERS = {
    **{
        name: lambda name=name: load_topology(name)
        for name in ("toy-2x2", "h100-4x8-rail", "paper-h100-32x8-hdr-rail8")
    },
    "three tiers": lambda: generated("three tiers", THREE_TIERS),
    "18 x 8": lambda: generated(
        "18 x 8", RAIL | {"nodes": 18, "su_nodes": 18, "spines": 4}
    ),
    "40 x 8": lambda: generated(
        "40 x 8", RAIL | {"nodes": 40, "su_nodes": 20, "spines": 8}
    ),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_wide_routes_carry_what_written_routes_carry(name: str) -> None:
    """Law: equal loads of every link for any transfers, equal pairs with a path."""
    topology = CLUSTERS[name]()
    written, wide = build_routes(topology), wide_routes(topology)
    assert wide is not None
    assert wide.q == written.q
    assert (wide.reachable_GG == written.reachable_GG).all()
    assert wide.table.reachable_pairs == written.table.reachable_pairs
    rng = np.random.default_rng(0)
    gpus = topology.gpu_count
    for density in (0.02, 1.0):
        moved = rng.integers(1, 9, (gpus, gpus)) * (rng.random((gpus, gpus)) < density)
        sparse = PairCounts.of_matrix(moved)
        expected = written.loads(moved)
        assert (wide.loads(sparse) == expected).all()
        assert (written.loads(sparse) == expected).all()
        assert (wide.loads(moved) == expected).all()
        huge = PairCounts.of_matrix(moved.astype(object) * 10**30)
        assert (wide.loads(huge) == expected.astype(object) * 10**30).all()


def test_a_pair_has_one_route_however_it_is_kept() -> None:
    """Law: links and shares of single pairs agree: in a domain, on a leaf, across."""
    topology = CLUSTERS["three tiers"]()
    written, wide = build_routes(topology), wide_routes(topology)
    assert wide is not None
    for target in range(1, topology.gpu_count):
        for expected, found in zip(
            written.pair(0, target), wide.pair(0, target), strict=True
        ):
            assert expected.tolist() == found.tolist()


@pytest.mark.parametrize("name", ["dgx-h100-1", "paper-h100-32x8-hdr"])
def test_shared_nics_and_clusters_without_a_fabric_are_written_out(name: str) -> None:
    """Law: routes are looked up only where a GPU has a NIC of its own."""
    assert wide_routes(load_topology(name)) is None


def test_leaves_that_forward_are_written_out() -> None:
    """Law: where a leaf lies on a shortest path between others, nothing is assumed."""
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for host in range(3):
        nodes.append(
            {"id": f"g{host}", "kind": "gpu", "host": f"h{host}", "profile": "x"}
        )
        nodes.append({"id": f"s{host}", "kind": "switch"})
        edges.append({"source": f"g{host}", "target": f"s{host}"})
    edges += [{"source": "s0", "target": "s1"}, {"source": "s1", "target": "s2"}]
    topology = load_topology(
        {
            "schema": "moe-topology/1",
            "graph": {"name": "row", "profiles": {"x": {"memory_bytes": 10**11}}},
            "nodes": nodes,
            "edges": [
                {**edge, "kind": "ib", "bandwidth_gbs": 50, "duplex": "full"}
                for edge in edges
            ],
        }
    )
    assert wide_routes(topology) is None
    assert build_routes(topology).reachable_GG.sum() == 6


def test_a_gpu_that_reaches_nobody_is_found_either_way() -> None:
    """Law: ``alone`` of the looked-up table is that of the written one."""
    topology = CLUSTERS["three tiers"]()
    wide = wide_routes(topology)
    assert wide is not None
    assert wide.table.alone.size == 0
