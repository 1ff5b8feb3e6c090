"""Routes that are looked up by leaf are the routes that are written out by pair."""

from itertools import permutations
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


@pytest.mark.parametrize("name", ["toy-2x2", "h100-4x8-rail", "three tiers"])
def test_everyone_to_everyone_is_surveyed_without_pairs(name: str) -> None:
    """Law: loads are those of one transfer per pair; ports serve one end only."""
    topology = CLUSTERS[name]()
    written, wide = build_routes(topology), wide_routes(topology)
    assert wide is not None
    gpus, links = topology.gpu_count, len(topology.links)
    ones = np.ones((gpus, gpus), dtype=np.int64) - np.eye(gpus, dtype=np.int64)
    ends: list[tuple[set[int], set[int]]] = [(set(), set()) for _ in range(links)]
    for source, target in permutations(range(gpus), 2):
        for link in written.pair(source, target)[0].tolist():
            ends[link][0].add(source)
            ends[link][1].add(target)
    port_A = [min(map(len, each)) <= 1 for each in ends]
    for routes in (written, wide):
        load_A, found_A = routes.all_to_all()
        assert load_A * routes.q == pytest.approx(written.loads(ones).astype(float))
        assert found_A.tolist() == port_A


@pytest.mark.parametrize("leaving", [False, True])
@pytest.mark.parametrize("name", ["toy-2x2", "h100-4x8-rail", "three tiers"])
def test_least_shares_are_on_every_route_between_domains(
    name: str, leaving: bool
) -> None:
    """Law: on the links all routes of a GPU to other domains share, the least."""
    topology = CLUSTERS[name]()
    written, wide = build_routes(topology), wide_routes(topology)
    assert wide is not None
    domain_G = topology.domain_G
    found = [
        routes.least_shares(domain_G, leaving=leaving) for routes in (written, wide)
    ]
    for gpu in range(0, topology.gpu_count, 3):
        far = np.flatnonzero(domain_G != domain_G[gpu]).tolist()
        ways = [
            written.pair(gpu, other) if leaving else written.pair(other, gpu)
            for other in far
        ]
        by_link = [dict(zip(*map(list, way), strict=True)) for way in ways]
        shared = set.intersection(*(set(each) for each in by_link))
        for shares in found:
            assert shares[gpu]
            for link, share in shares[gpu].items():
                assert link in shared
                assert 0 < share <= min(each[link] for each in by_link)


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
