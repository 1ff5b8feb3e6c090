"""Links by hand: β, classes, capacity groups, duplex, domains, warnings."""

from fractions import Fraction

import pytest

from planner.topology.schema import load_topology

GIGA = 10**9


def gpu(name, host="h", **more):
    """Return a GPU of 10 bytes."""
    return {"id": name, "kind": "gpu", "host": host, "memory_bytes": 10, **more}


def node(name, kind, **more):
    """Return a node of another kind."""
    return {"id": name, "kind": kind, **more}


def edge(source, target, gbs, kind=None, **more):
    """Return a full-duplex edge, unless ``duplex`` says otherwise."""
    made = {"source": source, "target": target, "bandwidth_gbs": gbs, "duplex": "full"}
    made.update({"kind": kind} if kind else {}, **more)
    return {key: value for key, value in made.items() if value is not None}


def cluster(nodes, edges, **graph):
    """Return the cluster of nodes and edges."""
    return load_topology(
        {"schema": "moe-topology/1", "graph": graph, "nodes": nodes, "edges": edges}
    )


PAIR = [gpu("a"), gpu("b")]


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("nvlink", "0.82"),
        ("xgmi", "0.80"),
        ("pcie", "0.75"),
        ("ib", "0.90"),
        ("roce", "0.85"),
        ("efa", "0.90"),
        ("upi", "1"),
        ("c2c", "1"),
        ("generic", "1"),
    ],
)
def test_effective_bandwidth_by_kind(kind, share):
    """β = nominal × the default efficiency of the kind, exactly (rule 8)."""
    topology = cluster(PAIR, [edge("a", "b", 0.1, kind)])
    assert topology.links[0].nominal_bytes_per_s == 10**8
    assert topology.links[0].bytes_per_s == Fraction(share) * 10**8


def test_decimals_are_exact():
    """0.1 is 1/10, not the nearest double."""
    topology = cluster(PAIR, [edge("a", "b", 0.1, "generic", latency_us=0.3)])
    assert topology.links[0].bytes_per_s == Fraction(1, 10) * GIGA
    assert topology.links[0].latency_s == 3e-7


def test_efficiency_of_the_edge_comes_before_that_of_the_graph():
    """Edge, then graph, then default; effective figures count as they are."""
    edges = [edge("a", "b", 100, "nvlink")]
    own = [edge("a", "b", 100, "nvlink", efficiency=0.5)]
    assert (
        cluster(PAIR, edges, efficiency={"nvlink": 0.7}).links[0].bytes_per_s
        == 70 * GIGA
    )
    assert (
        cluster(PAIR, own, efficiency={"nvlink": 0.7}).links[0].bytes_per_s == 50 * GIGA
    )
    assert (
        cluster(PAIR, edges, bandwidth_basis="effective").links[0].bytes_per_s
        == 100 * GIGA
    )
    assert (
        cluster(PAIR, own, bandwidth_basis="effective").links[0].bytes_per_s
        == 50 * GIGA
    )


def test_full_duplex_is_two_links_and_none_is_one():
    """Links stand in file order, there before back."""
    edges = [edge("a", "b", 1, "nvlink"), edge("b", "c", 1, "nvlink", duplex=None)]
    edges.append(edge("c", "a", 1, "nvlink", duplex=None))
    topology = cluster([*PAIR, gpu("c")], edges)
    assert [k.name for k in topology.links] == ["a -> b", "b -> a", "b -> c", "c -> a"]
    assert [k.index for k in topology.links] == [0, 1, 2, 3]
    assert any("without a way back: b -> c, c -> a" in w for w in topology.warnings)


def test_half_duplex_is_a_group_of_both_directions():
    """Both directions share one budget (rule 9)."""
    topology = cluster(PAIR, [edge("a", "b", 10, "pcie", duplex="half")])
    there, back, group = topology.links
    assert group.members == (there.index, back.index)
    assert group.bytes_per_s == Fraction(75, 10) * GIGA
    assert group.name == group.link_class == "group:a - b"


def test_a_group_takes_its_capacity_and_the_lowest_efficiency_of_its_members():
    """β = capacity × lowest member efficiency; no capacity: the smallest member."""
    edges = [
        edge("a", "b", 100, "nvlink", capacity_group="root", duplex=None),
        edge("b", "a", 40, "pcie", capacity_group="root", duplex=None),
    ]
    named = cluster(PAIR, edges, capacity_groups={"root": {"bandwidth_gbs": 60}})
    assert named.links[2].bytes_per_s == 60 * GIGA * Fraction(75, 100)
    smallest = cluster(PAIR, edges)
    assert smallest.links[2].nominal_bytes_per_s == 40 * GIGA
    assert smallest.links[2].bytes_per_s == 30 * GIGA
    assert len(named.edge_index) == 2


def test_link_classes_name_kinds_and_tiers_in_direction():
    """`<edge kind>:<node kind>><node kind>`, switches with their tier (rule 10)."""
    nodes = [
        *PAIR,
        node("n", "nic", host="h"),
        node("l", "switch"),
        node("s", "switch", tier=1),
    ]
    edges = [
        edge("a", "n", 1, "pcie"),
        edge("b", "n", 1, "pcie"),
        edge("n", "l", 1, "ib", cables=3),
        edge("l", "s", 1, "ib", cables=4),
    ]
    topology = cluster(nodes, edges)
    classes = [k.link_class for k in topology.links]
    assert classes[0::2] == [
        "pcie:gpu>nic",
        "pcie:gpu>nic",
        "ib:nic>switch0",
        "ib:switch0>switch1",
    ]
    assert classes[5] == "ib:switch0>nic"
    assert [k.token_divisor for k in topology.links] == [1] * 6 + [4] * 2


def test_what_is_down_is_absent():
    """Down nodes and edges carry nothing; they are kept by name for reports."""
    nodes = [
        *PAIR,
        gpu("c", state="down"),
        node("v", "nvswitch"),
        node("w", "nvswitch", state="down"),
    ]
    edges = [edge(g, v, 1, "nvlink") for g in "abc" for v in "vw"]
    edges += [edge("a", "b", 9, "nvlink", state="down")]
    topology = cluster(nodes, edges)
    assert [g.id for g in topology.gpus] == ["a", "b"]
    assert {k.source for k in topology.links} == {"a", "b", "v"}
    assert topology.down == ("c", "w", "a -> b")


def test_a_domain_is_named_or_joined_by_scale_up_edges():
    """Named GPUs by name, the others by NVLink component, else alone (rule 2)."""
    nodes = [gpu("a"), gpu("x", "h2", nvlink_domain="rack"), gpu("b")]
    nodes += [
        gpu("y", "h3", nvlink_domain="rack"),
        gpu("c", "h4"),
        node("v", "nvswitch"),
    ]
    edges = [edge("a", "v", 1, "nvlink"), edge("b", "v", 1, "nvlink")]
    edges += [edge("x", "y", 1, "nvlink"), edge("c", "x", 1, "pcie")]
    topology = cluster(nodes, edges)
    assert topology.domain_G.tolist() == [0, 1, 0, 1, 2]
    assert topology.domains == ((0, 2), (1, 3), (4,))


def test_memory_is_the_nodes_or_else_the_profiles():
    """A GPU's own figure comes before its profile's."""
    profiles = {"p": {"memory_bytes": 70}, "unused": {"memory_bytes": 1}}
    nodes = [
        {**gpu("a"), "profile": "p"},
        {"id": "b", "kind": "gpu", "host": "h", "profile": "p"},
    ]
    topology = cluster(nodes, [edge("a", "b", 1, "nvlink")], profiles=profiles)
    assert [g.memory_bytes for g in topology.gpus] == [10, 70]
    assert "profiles that no GPU uses: unused" in topology.warnings


def test_kinds_that_are_missing_are_inferred_and_said():
    """The required minimum of an edge is source, target and bandwidth."""
    nodes = [
        *PAIR,
        node("v", "nvswitch"),
        node("p", "pcie_switch"),
        node("c", "cpu"),
        node("d", "cpu"),
    ]
    nodes += [node("n", "nic", host="h"), node("l", "switch")]
    pairs = [
        ("a", "v"),
        ("a", "b"),
        ("b", "p"),
        ("p", "c"),
        ("c", "d"),
        ("p", "n"),
        ("n", "l"),
    ]
    topology = cluster(nodes, [edge(s, t, 1) for s, t in pairs])
    assert [k.kind for k in topology.links[::2]] == [
        "nvlink",
        "nvlink",
        "pcie",
        "pcie",
        "upi",
        "pcie",
        "generic",
    ]
    assert "kind of 7 edges: inferred from the nodes they join" in topology.assumptions
    assert "latency of 7 edges: 0" in topology.assumptions


def test_workload_and_routing_of_the_file_are_carried_through():
    """What the file asks for reaches the pipeline; it decides (rule 7)."""
    topology = load_topology(
        {
            "schema": "moe-topology/1.3",
            "nodes": PAIR,
            "edges": [edge("a", "b", 1, "nvlink")],
            "graph": {"routing": {"policy": "ecmp_fractional", "endpoint": "pxn"}},
            "workload": {"model": "tiny-moe", "trace": "t.parquet"},
        }
    )
    assert topology.workload == {"model": "tiny-moe", "trace": "t.parquet"}
    assert (topology.routing, topology.endpoint) == ("ecmp_fractional", "pxn")
    assert topology.name == "inline"


def _warned(nodes, edges, sentence, **graph):
    warnings = cluster(nodes, edges, **graph).warnings
    assert any(sentence in warning for warning in warnings), warnings


def test_warnings_name_what_looks_wrong():
    """Legal, but worth a look (topology description, section on validation)."""
    nodes = [
        *PAIR,
        node("m", "nic", host="h"),
        node("n", "nic", host="h"),
        node("l", "switch", ports=1),
    ]
    base = [edge("a", "m", 10, "pcie"), edge("b", "n", 10, "pcie")]
    up = [edge("m", "l", 50, "ib"), edge("n", "l", 50, "ib")]
    _warned(nodes, base + up, "NICs faster than their PCIe: m, n")
    _warned(nodes, base + up, "more cables than ports: l (2 cables on 1 ports)")
    far = [{**base[0], "affinity": "SYS"}, base[1]]
    _warned(nodes, far + up, "GPUs without a near NIC: a")
    _warned(
        nodes, [*up, base[0], edge("a", "b", 1, "nvlink")], "GPUs without a near NIC: b"
    )
    rails = [
        *PAIR,
        node("m", "nic", host="h", rail=0),
        node("n", "nic", host="h", rail=0),
    ]
    rails += [
        node("o", "nic", host="h", rail=1),
        node("l", "switch"),
        node("s", "switch", tier=1),
    ]
    _warned(rails, [*base, *up], "rails of unequal size (1, 2 NICs)")
    _warned(
        rails,
        [*base, up[0], edge("n", "s", 1, "ib"), edge("l", "s", 1, "ib")],
        "above the leaves: n",
    )
    _warned(
        [*PAIR, gpu("c", "h2")],
        [edge("a", "b", 1, "nvlink"), edge("b", "c", 1, "pcie")],
        "unequal size (1, 2 GPUs)",
    )
    _warned(
        PAIR,
        [edge("a", "b", 1, "nvlink", capacity_group="g")],
        "add both directions up: g",
    )
    _warned(
        PAIR,
        [edge("a", "b", 1, "nvlink")],
        "groups without an edge: g",
        capacity_groups={"g": {}},
    )
