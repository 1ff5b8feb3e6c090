"""Routes computed by hand on tiny clusters, one rule at a time."""

from fractions import Fraction

import numpy as np
import pytest

from planner.errors import TopologyError
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology


def gpu(name, host="h", **more):
    """Return a GPU of 10 bytes."""
    return {"id": name, "kind": "gpu", "host": host, "memory_bytes": 10, **more}


def nic(name, host="h", **more):
    """Return a compute NIC."""
    return {"id": name, "kind": "nic", "host": host, **more}


def others(kind, names):
    """Return nodes of one kind, by the letters of ``names``."""
    return [{"id": name, "kind": kind} for name in names]


def edge(source, target, kind, gbs=1, **more):
    """Return a full-duplex edge."""
    made = {"source": source, "target": target, "kind": kind, "bandwidth_gbs": gbs}
    return {**made, "duplex": "full", **more}


def routed(nodes, edges):
    """Return the routes of a cluster."""
    file = {"schema": "moe-topology/1", "nodes": nodes, "edges": edges}
    return build_routes(load_topology(file))


def way(routes, source, target):
    """Return ``{link name: share}`` of a pair of GPU ids."""
    place = [gpu.id for gpu in routes.topology.gpus]
    links, numerators = routes.pair(place.index(source), place.index(target))
    return {
        routes.topology.links[a].name: Fraction(n, routes.q)
        for a, n in zip(links.tolist(), numerators.tolist(), strict=True)
    }


TWO_HOSTS = [gpu("a"), nic("m"), gpu("b", "i"), nic("n", "i")]
WIRED = [edge("a", "m", "pcie"), edge("b", "n", "pcie")]


def test_traffic_divides_in_proportion_to_nominal_bandwidth():
    """Two spines at 100 and 50: two thirds and one third (rule 6)."""
    nodes = [*TWO_HOSTS, *others("switch", "klst")]
    edges = [*WIRED, edge("m", "k", "ib"), edge("n", "l", "ib")]
    edges += [edge("k", "s", "ib", 100), edge("k", "t", "ib", 50)]
    # Efficiency and what comes after do not count, only the nominal next hop.
    edges += [edge("s", "l", "ib", 1, efficiency=0.1), edge("t", "l", "ib", 7)]
    routes = routed(nodes, edges)
    third = Fraction(1, 3)
    assert way(routes, "a", "b") == {
        "a -> m": 1,
        "m -> k": 1,
        "k -> s": 2 * third,
        "k -> t": third,
        "s -> l": 2 * third,
        "t -> l": third,
        "l -> n": 1,
        "n -> b": 1,
    }
    # Backwards the spines' own bandwidths decide: 1 and 7.
    assert way(routes, "b", "a")["l -> s"] == Fraction(1, 8)
    assert routes.q == 24


def test_only_fewest_hops_count():
    """A longer way is not used, however wide (rule 6)."""
    nodes = [*TWO_HOSTS, *others("switch", "kls")]
    edges = [*WIRED, edge("m", "k", "ib"), edge("n", "l", "ib")]
    edges += [
        edge("k", "l", "ib", 1),
        edge("k", "s", "ib", 99),
        edge("s", "l", "ib", 99),
    ]
    assert "k -> s" not in way(routed(nodes, edges), "a", "b")


def test_nics_of_equal_affinity_share_by_port_rate_at_both_ends():
    """Source share × destination share (rule 5)."""
    nodes = [
        gpu("a"),
        nic("m1"),
        nic("m2"),
        gpu("b", "i"),
        nic("n1", "i"),
        nic("n2", "i"),
    ]
    nodes += others("switch", "k")
    edges = [edge("a", "m1", "pcie"), edge("a", "m2", "pcie")]
    edges += [edge("b", "n1", "pcie"), edge("b", "n2", "pcie")]
    edges += [edge("m1", "k", "ib", 50), edge("m2", "k", "ib", 25)]
    edges += [edge("n1", "k", "ib", 10), edge("n2", "k", "ib", 30)]
    found = way(routed(nodes, edges), "a", "b")
    assert found["a -> m1"] == found["m1 -> k"] == Fraction(2, 3)
    assert found["a -> m2"] == Fraction(1, 3)
    assert found["k -> n1"] == found["n1 -> b"] == Fraction(1, 4)
    assert found["n2 -> b"] == Fraction(3, 4)


def test_a_nic_with_two_ports_uses_the_one_that_is_nearer():
    """First hops are on shortest paths only; both, where both are."""
    nodes = [*TWO_HOSTS, gpu("c", "j"), nic("o", "j"), *others("switch", "kl")]
    edges = [*WIRED, edge("c", "o", "pcie"), edge("n", "k", "ib"), edge("k", "l", "ib")]
    edges += [edge("m", "k", "ib", 3), edge("m", "l", "ib", 1)]
    edges += [edge("o", "k", "ib", 1), edge("o", "l", "ib", 1)]
    routes = routed(nodes, edges)
    assert way(routes, "a", "b")["m -> k"] == 1
    assert way(routes, "a", "c")["m -> k"] == Fraction(3, 4)
    assert way(routes, "a", "c")["l -> o"] == Fraction(1, 4)


def test_affinity_on_the_edge_comes_before_hops():
    """A NIC two hops away is PXB; an edge that says SYS is farther (rule 5)."""
    nodes = [gpu("a"), nic("m1"), nic("m2"), gpu("b", "i"), nic("n", "i")]
    nodes += [*others("switch", "k"), *others("pcie_switch", "p")]
    edges = [edge("a", "m1", "pcie", affinity="SYS"), edge("a", "p", "pcie")]
    edges += [edge("p", "m2", "pcie"), edge("b", "n", "pcie")]
    edges += [edge(end, "k", "ib") for end in ("m1", "m2", "n")]
    assert list(way(routed(nodes, edges), "a", "b")) == [
        "a -> p",
        "p -> m2",
        "n -> b",
        "m2 -> k",
        "k -> n",
    ]
    nearer = [{**edges[0], "affinity": "PIX"}, *edges[1:]]
    assert "a -> m1" in way(routed(nodes, nearer), "a", "b")


def test_storage_nics_and_nics_without_a_live_port_are_no_choice():
    """Only compute NICs that reach the fabric are chosen."""
    nodes = [gpu("a"), nic("m1", role="storage"), nic("m2"), nic("m3"), gpu("b", "i")]
    nodes += [nic("n", "i"), *others("switch", "k"), *others("pcie_switch", "p")]
    edges = [edge("a", "m1", "pcie"), edge("a", "m2", "pcie"), edge("a", "p", "pcie")]
    edges += [edge("p", "m3", "pcie"), edge("b", "n", "pcie")]
    edges += [edge(end, "k", "ib") for end in ("m1", "m3", "n")]
    edges += [edge("m2", "k", "ib", state="down")]
    assert "p -> m3" in way(routed(nodes, edges), "a", "b")


def test_nic_pairs_without_a_path_are_dropped_and_the_rest_renormalised():
    """Two separate fabrics; the target sits on one of them (rule 5)."""
    nodes = [gpu("a"), nic("m1"), nic("m2"), gpu("b", "i"), nic("n", "i")]
    nodes += [gpu("c", "j"), nic("o", "j"), *others("switch", "kl")]
    edges = [edge("a", "m1", "pcie"), edge("a", "m2", "pcie"), edge("b", "n", "pcie")]
    edges += [
        edge("c", "o", "pcie"),
        edge("m1", "k", "ib", 5),
        edge("m2", "l", "ib", 2),
    ]
    edges += [edge("n", "k", "ib"), edge("o", "l", "ib")]
    routes = routed(nodes, edges)
    assert way(routes, "a", "b")["a -> m1"] == 1
    assert way(routes, "a", "c")["a -> m2"] == 1
    with pytest.raises(TopologyError, match=r"b.*has no path to c"):
        way(routes, "b", "c")


def test_transfers_without_a_path_are_refused_and_others_are_not():
    """A rail-only fabric serves transfers that stay on the rail."""
    nodes, edges = [*others("switch", "kl")], []
    for host in "hi":
        nodes += [{"id": f"{host}v", "kind": "nvswitch"}]
        for rail, switch in enumerate("kl"):
            nodes += [gpu(f"{host}{rail}", host), nic(f"{host}n{rail}", host)]
            edges += [edge(f"{host}{rail}", f"{host}v", "nvlink")]
            edges += [edge(f"{host}{rail}", f"{host}n{rail}", "pcie")]
            edges += [edge(f"{host}n{rail}", switch, "ib")]
    routes = routed(nodes, edges)
    on_rail = np.kron(np.ones((2, 2), dtype=np.int64), np.eye(2, dtype=np.int64))
    assert routes.loads(on_rail).sum() == 4 * 4 * routes.q
    for dtype in (np.int64, object):
        with pytest.raises(TopologyError, match=r"h0.*no path to i1"):
            routes.loads(
                np.ones((4, 4), dtype=dtype) * (1 if dtype is np.int64 else 2**80)
            )


def test_one_domain_goes_by_nvlink_across_hosts():
    """A domain is not a host: NVL72 spans many (rules 2 and 4)."""
    nodes = [gpu("a", nvlink_domain="r"), gpu("b", "i", nvlink_domain="r")]
    nodes += [nic("m"), nic("n", "i"), *others("nvswitch", "v"), *others("switch", "k")]
    edges = [*WIRED, edge("a", "v", "nvlink"), edge("b", "v", "nvlink")]
    edges += [edge("m", "k", "ib"), edge("n", "k", "ib")]
    assert way(routed(nodes, edges), "a", "b") == {"a -> v": 1, "v -> b": 1}
    split = [{**nodes[0], "nvlink_domain": "other"}, *nodes[1:]]
    assert "m -> k" in way(routed(split, edges), "a", "b")


def test_without_nvlink_one_host_goes_by_pcie():
    """Same host: pcie, upi and c2c edges over PCIe switches and CPUs (rule 4)."""
    nodes = [gpu("a"), gpu("b"), nic("m"), *others("cpu", "cd"), *others("switch", "k")]
    edges = [edge("a", "c", "pcie"), edge("c", "d", "upi"), edge("d", "b", "c2c")]
    edges += [edge("d", "m", "pcie"), edge("m", "k", "ib")]
    assert way(routed(nodes, edges), "a", "b") == {
        "a -> c": 1,
        "c -> d": 1,
        "d -> b": 1,
    }


def test_gpus_that_share_a_nic_meet_there():
    """From a NIC to itself there is no fabric to cross."""
    nodes = [
        gpu("a"),
        gpu("b"),
        gpu("c", "i"),
        nic("m"),
        nic("n", "i"),
        *others("switch", "k"),
    ]
    edges = [edge("a", "m", "pcie"), edge("b", "m", "pcie"), edge("c", "n", "pcie")]
    edges += [edge("m", "k", "ib"), edge("n", "k", "ib")]
    routes = routed(nodes, edges)
    assert way(routes, "a", "b") == {"a -> m": 1, "m -> b": 1}
    assert "m -> k" in way(routes, "a", "c")


def test_a_gpu_wired_to_a_switch_is_its_own_endpoint():
    """No NIC stands between (rule 4)."""
    nodes = [gpu("a"), *TWO_HOSTS[2:], *others("switch", "k")]
    edges = [edge("a", "k", "generic"), WIRED[1], edge("n", "k", "ib")]
    assert way(routed(nodes, edges), "a", "b") == {
        "a -> k": 1,
        "k -> n": 1,
        "n -> b": 1,
    }


def test_two_nics_may_be_wired_back_to_back():
    """A cluster of two hosts without a switch."""
    assert way(routed(TWO_HOSTS, [*WIRED, edge("m", "n", "ib")]), "a", "b") == {
        "a -> m": 1,
        "m -> n": 1,
        "n -> b": 1,
    }


def test_gpus_do_not_forward():
    """A chain of GPUs has no path from end to end (rule 4)."""
    nodes = [gpu("a"), gpu("b"), gpu("c")]
    routes = routed(nodes, [edge("a", "b", "nvlink"), edge("b", "c", "nvlink")])
    assert way(routes, "a", "b") == {"a -> b": 1}
    assert not routes.reachable_GG[0, 2]


def test_a_full_mesh_goes_straight():
    """MI300X: every pair has its own link."""
    file = {
        "schema": "moe-topology/1",
        "graph": {"profiles": {"p": {"memory_bytes": 192 * 10**9}}},
        "generator": {"kind": "full_mesh", "profile": "p", "pair_gbs": 64},
    }
    routes = build_routes(load_topology(file))
    assert len(routes.topology.links) == 56
    loads = routes.loads(np.ones((8, 8), dtype=np.int64))
    assert set(loads.tolist()) == {routes.q}


def test_a_capacity_group_carries_what_its_members_carry():
    """Its load is the sum over members; so is its share (rule 9)."""
    nodes = [gpu("a"), gpu("b"), *others("pcie_switch", "p")]
    edges = [
        edge("a", "p", "pcie", capacity_group="root"),
        edge("b", "p", "pcie", duplex="half"),
    ]
    routes = routed(nodes, edges)
    assert way(routes, "a", "b") == {
        "a -> p": 1,
        "p -> b": 1,
        "group:root": 1,
        "group:b - p": 1,
    }
    assert routes.loads(np.asarray([[0, 3], [4, 0]])).tolist() == [3, 4, 4, 3, 7, 7]


def test_q_beyond_64_bits_stays_exact():
    """Four stages that divide by large primes: Q is a Python integer."""
    primes = [99991, 99989, 99971, 99961]
    nodes = [*TWO_HOSTS, *others("switch", [f"k{i}" for i in range(5)])]
    edges = [*WIRED, edge("m", "k0", "ib"), edge("n", "k4", "ib")]
    for i, prime in enumerate(primes):
        nodes += others("switch", [f"s{i}", f"t{i}"])
        edges += [edge(f"k{i}", f"s{i}", "ib", 1), edge(f"s{i}", f"k{i + 1}", "ib")]
        edges += [edge(f"k{i}", f"t{i}", "ib", prime - 1)]
        edges += [edge(f"t{i}", f"k{i + 1}", "ib")]
    routes = routed(nodes, edges)
    found = way(routes, "a", "b")
    for i, prime in enumerate(primes):
        assert found[f"k{i} -> s{i}"] == Fraction(1, prime)
        assert found[f"t{i} -> k{i + 1}"] == Fraction(prime - 1, prime)
    # Backwards every stage divides in halves.
    assert routes.q == 2 * primes[0] * primes[1] * primes[2] * primes[3] > 2**63
    loads = routes.loads(np.asarray([[0, 3], [0, 0]]))
    assert loads.dtype == object
    links = routes.topology.links
    assert loads.tolist() == [3 * routes.q * found.get(k.name, 0) for k in links]
    assert routes.incidence()[2].dtype == object


def test_a_gpu_that_only_other_rules_would_reach_is_refused():
    """Connected as a graph, but through a NIC of another host (rule 4)."""
    nodes = [*TWO_HOSTS, gpu("c", "j"), *others("switch", "k")]
    edges = [*WIRED, edge("m", "k", "ib"), edge("n", "k", "ib"), edge("c", "m", "pcie")]
    with pytest.raises(TopologyError, match="'c' has no path to another GPU"):
        routed(nodes, edges)


def test_transfers_must_be_integers():
    """Shares of transfers are counted over Q, never in floating point."""
    with pytest.raises(TypeError, match="integers"):
        build_routes(load_topology("toy-2x2")).loads(np.ones((4, 4)))
