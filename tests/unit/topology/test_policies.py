"""Single-path routing policies: by hand and by the laws of fat trees."""

from fractions import Fraction
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from planner.errors import TopologyError, UsageError
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology


def two_leaves(hosts=4, spines=2, cables=1, **routing):
    """Return ``hosts`` hosts a leaf on two leaves, every leaf on every spine."""
    nodes, edges = [], []
    for number in range(2 * hosts):
        host, leaf = f"h{number}", f"k{number // hosts}"
        nodes += [
            {"id": f"g{number}", "kind": "gpu", "host": host, "memory_bytes": 1},
            {"id": f"n{number}", "kind": "nic", "host": host},
        ]
        edges += [wire(f"g{number}", f"n{number}", "pcie")]
        edges += [wire(f"n{number}", leaf, "ib")]
    for leaf in ("k0", "k1"):
        nodes += [{"id": leaf, "kind": "switch", "tier": 0}]
        edges += [wire(leaf, f"s{s}", "ib", cables=cables) for s in range(spines)]
    nodes += [{"id": f"s{s}", "kind": "switch", "tier": 1} for s in range(spines)]
    file = {"schema": "moe-topology/1", "nodes": nodes, "edges": edges}
    if routing:
        file["graph"] = {"routing": routing}
    return load_topology(file)


def wire(source, target, kind, **more):
    """Return a full-duplex edge of 1 GB/s."""
    made = {"source": source, "target": target, "kind": kind, "bandwidth_gbs": 1}
    return {**made, "duplex": "full", **more}


def way(routes, source, target):
    """Return ``{link name: share}`` of a pair of GPU numbers."""
    links, numerators = routes.pair(source, target)
    return {
        routes.topology.links[a].name: Fraction(n, routes.q)
        for a, n in zip(links.tolist(), numerators.tolist(), strict=True)
    }


def test_dmodk_takes_the_spine_of_the_destination():
    """Host d of the leaves goes by spine d mod 2 from every source."""
    routes = build_routes(two_leaves(), "dmodk")
    for source in range(4):
        for target in range(4, 8):
            spine = f"s{target % 2}"
            taken = way(routes, source, target)
            assert taken[f"k0 -> {spine}"] == taken[f"{spine} -> k1"] == 1
            assert len(taken) == 6
    assert len(way(routes, 0, 1)) == 4


def test_dmodk_counts_cables_and_numbers_leaf_by_leaf():
    """Four hosts over two spines of two cables: d mod 4, two cables each."""
    routes = build_routes(two_leaves(cables=2), "dmodk")
    spines = [
        next(s for s in ("s0", "s1") if f"k0 -> {s}" in way(routes, 0, target))
        for target in range(4, 8)
    ]
    assert spines == ["s0", "s0", "s1", "s1"]


def test_on_a_full_tree_a_shift_costs_what_fractional_routing_costs():
    """A shift permutation loads no link more than once (Zahavi 2011)."""
    topology = two_leaves(hosts=4, spines=4)
    count = topology.gpu_count
    static, divided = (
        build_routes(topology, policy) for policy in ("dmodk", "ecmp_fractional")
    )
    for shift in range(1, count):
        moves_GG = np.zeros((count, count), dtype=np.int64)
        moves_GG[np.arange(count), (np.arange(count) + shift) % count] = 12
        assert static.loads(moves_GG).max() == 12 * static.q
        assert divided.loads(moves_GG).max() == 12 * divided.q


def test_a_hash_takes_shortest_paths_and_all_of_them_over_the_seeds():
    """Every draw is one whole shortest path; the mean over draws is fractional."""
    topology = two_leaves(spines=4)
    fractional = way(build_routes(topology), 0, 5)
    shortest = [
        {f"{a} -> {b}" for a, b in pairwise(path)}
        for path in nx.all_shortest_paths(topology.graph, "g0", "g5")
    ]
    total = dict.fromkeys(fractional, Fraction(0))
    for seed in range(400):
        taken = way(build_routes(topology, f"ecmp_hash({seed})"), 0, 5)
        assert set(taken) in shortest
        assert set(taken.values()) == {1}
        for link in taken:
            total[link] += Fraction(1, 400)
    for link, share in fractional.items():
        # Four standard deviations of 400 fair draws.
        assert abs(total[link] - share) <= 4 * (share * (1 - share) / 400) ** 0.5


def test_several_flows_share_a_transfer():
    """Eight flows: shares in eighths that add up at every node."""
    routes = build_routes(two_leaves(spines=4), "ecmp_hash(3,8)")
    taken = way(routes, 0, 5)
    up = {link: share for link, share in taken.items() if link.startswith("k0 -> s")}
    assert sum(up.values()) == 1
    assert len(up) > 1
    assert all((8 * share).denominator == 1 for share in taken.values())
    for link, share in up.items():
        spine = link.removeprefix("k0 -> ")
        assert taken[f"{spine} -> k1"] == share


def test_one_seed_is_one_routing():
    """The same seed draws the same routes, another one others."""
    topology = two_leaves(spines=4)
    first, again, other = (
        build_routes(topology, f"ecmp_hash({seed})").incidence()[1]
        for seed in (1, 1, 2)
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_tables_are_followed_even_where_they_are_no_shortest_path():
    """Within leaf k0 the table sends n1 up to s1, which sends it down again."""
    tables = {
        "k0": {"n1": "s1", **{f"n{d}": "s1" for d in range(4, 8)}},
        "k1": {f"n{d}": "s0" for d in range(4)},
    }
    with pytest.raises(TopologyError, match="circle"):
        build_routes(two_leaves(tables=tables), "explicit")
    tables["k0"].pop("n1")
    tables["s1"] = {"n5": "k0"}
    tables["k0"]["n5"] = "s0"
    routes = build_routes(two_leaves(policy="explicit", tables=tables), "explicit")
    assert "k0 -> s1" in way(routes, 0, 6)
    assert "k0 -> s0" in way(routes, 0, 5)
    assert "k1 -> s0" in way(routes, 5, 0)


def test_a_table_may_make_a_detour():
    """A third spine behind s1: k0 → s1 → s2 → k1 has one hop too many, and is taken."""
    file = {
        "schema": "moe-topology/1",
        "nodes": [
            {"id": "a", "kind": "gpu", "host": "h", "memory_bytes": 1},
            {"id": "m", "kind": "nic", "host": "h"},
            {"id": "b", "kind": "gpu", "host": "i", "memory_bytes": 1},
            {"id": "n", "kind": "nic", "host": "i"},
            *({"id": f"k{number}", "kind": "switch"} for number in range(3)),
        ],
        "edges": [
            wire("a", "m", "pcie"),
            wire("b", "n", "pcie"),
            wire("m", "k0", "ib"),
            wire("k0", "k1", "ib"),
            wire("k0", "k2", "ib"),
            wire("k2", "k1", "ib"),
            wire("k1", "n", "ib"),
        ],
        "graph": {"routing": {"tables": {"k0": {"n": "k2"}}}},
    }
    routes = build_routes(load_topology(file), "explicit")
    assert {"k0 -> k2", "k2 -> k1"} <= set(way(routes, 0, 1))
    assert "k1 -> k0" in way(routes, 1, 0)


def test_a_gap_in_a_table_names_the_switch_and_the_destination():
    """The first pair that needs the entry says which is missing."""
    tables = {"k0": {f"n{d}": "s1" for d in range(4, 8)}, "k1": {"n1": "s0"}}
    with pytest.raises(TopologyError, match="tables/k1/n0"):
        build_routes(two_leaves(tables=tables), "explicit")


def test_a_circle_in_a_table_is_found():
    """k0 → s1 → k0 comes back."""
    tables = {
        "k0": {f"n{d}": "s1" for d in range(4, 8)},
        "k1": {f"n{d}": "s0" for d in range(4)},
        "s1": {"n5": "k0"},
    }
    with pytest.raises(TopologyError, match="circle"):
        build_routes(two_leaves(tables=tables), "explicit")


def test_a_table_entry_must_be_a_neighbour():
    """A next hop that no cable reaches is refused with the choices."""
    tables = {"k0": {"n4": "k1"}}
    with pytest.raises(TopologyError, match="no neighbour of k0"):
        build_routes(two_leaves(tables=tables), "explicit")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("ecmp", "is unknown; supported: ecmp_fractional, dmodk, ecmp_hash, explicit"),
        ("ecmp_hash(x)", "integers"),
        ("ecmp_hash(1,0)", "at least 1 flow"),
        ("ecmp_hash(-1)", "at least 0"),
        ("dmodk(2)", "takes no values"),
        ("explicit", "has no graph.routing.tables"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy, said):
    """One sentence says what is wrong with what was written."""
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        build_routes(two_leaves(), policy)
