"""Laws of routes on random clusters, against an oracle written apart."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from planner.errors import TopologyError
from planner.topology.paths import build_routes
from planner.topology.schema import load_topology
from tests.oracles.routes import Cluster

WIDTHS = st.sampled_from([1, 2, 3, 0.1, 0.7, 12.5, 25])
CALM = [HealthCheck.too_slow, HealthCheck.filter_too_much]
MANY = settings(max_examples=150, deadline=None, suppress_health_check=CALM)
FEW = settings(MANY, max_examples=50)


def _seldom(draw, of):
    """Whether the one case out of ``of`` holds."""
    return draw(st.integers(0, of - 1)) == of - 1


def _edge(draw, source, target, kind):
    edge = {
        "source": source,
        "target": target,
        "kind": kind,
        "bandwidth_gbs": draw(WIDTHS),
    }
    duplex = draw(st.sampled_from(["full"] * 18 + ["half", None]))
    if duplex:
        edge["duplex"] = duplex
    if _seldom(draw, 30):
        edge["state"] = "down"
    if _seldom(draw, 8):
        edge["capacity_group"] = draw(st.sampled_from(["one", "two"]))
    return edge


def _host(draw, host, nodes, edges):
    gpus = [f"{host}/g{i}" for i in range(draw(st.integers(1, 3)))]
    scale_up = draw(st.sampled_from(["none", "switch", "two", "mesh"]))
    for gpu in gpus:
        nodes.append({"id": gpu, "kind": "gpu", "host": host, "memory_bytes": 10})
    for number in range({"switch": 1, "two": 2}.get(scale_up, 0)):
        nodes.append({"id": f"{host}/v{number}", "kind": "nvswitch"})
        edges += [_edge(draw, gpu, f"{host}/v{number}", "nvlink") for gpu in gpus]
    if scale_up == "mesh":
        edges += [
            _edge(draw, a, b, "xgmi") for i, a in enumerate(gpus) for b in gpus[:i]
        ]
    hubs = [f"{host}/p{i}" for i in range(draw(st.sampled_from([1, 2, 0])))]
    for hub in hubs:
        nodes.append({"id": hub, "kind": "pcie_switch", "host": host})
        edges += [_edge(draw, gpu, hub, "pcie") for gpu in gpus if not _seldom(draw, 4)]
    if len(hubs) == 2 and draw(st.booleans()):
        edges.append(_edge(draw, hubs[0], hubs[1], "upi"))
    nics = [f"{host}/n{i}" for i in range(draw(st.sampled_from([2, 1, 3, 0])))]
    for nic in nics:
        role = draw(st.sampled_from(["compute"] * 8 + ["storage"]))
        nodes.append({"id": nic, "kind": "nic", "host": host, "role": role})
        edges += [_edge(draw, hub, nic, "pcie") for hub in hubs if not _seldom(draw, 4)]
        for gpu in gpus:
            if _seldom(draw, 3):
                direct = _edge(draw, gpu, nic, "pcie")
                said = draw(st.sampled_from([None, "PIX", "PXB", "SYS"]))
                edges.append({**direct, "affinity": said} if said else direct)
    return gpus, nics


@st.composite
def clusters(draw):
    """A random cluster: unequal links, shared and double NICs, gaps, groups."""
    nodes, edges, ends = [], [], []
    for number in range(draw(st.sampled_from([2, 3, 1]))):
        gpus, nics = _host(draw, f"h{number}", nodes, edges)
        ends += nics
        ends += [gpu for gpu in gpus if _seldom(draw, 8)]
    leaves = [f"leaf{i}" for i in range(draw(st.integers(1, 3)))]
    spines = [f"spine{i}" for i in range(draw(st.integers(0, 2)))]
    cores = [f"core{i}" for i in range(draw(st.integers(0, 2)))]
    for tier, names in enumerate((leaves, spines, cores)):
        nodes += [{"id": n, "kind": "switch", "tier": tier, "ports": 64} for n in names]
    for end in ends:
        chosen = draw(st.sets(st.sampled_from(leaves), min_size=1, max_size=2))
        edges += [_edge(draw, end, leaf, "ib") for leaf in sorted(chosen)]
    for spine in spines:
        edges += [_edge(draw, spine, core, "ib") for core in cores]
    for leaf in leaves:
        edges += [
            _edge(draw, leaf, spine, "ib") for spine in spines if not _seldom(draw, 4)
        ]
    if draw(st.booleans()) and nodes[0]["kind"] == "gpu":
        nodes[0]["nvlink_domain"] = "alone"
    for node in nodes:
        if _seldom(draw, 60):
            node["state"] = "down"
    # One written direction may repeat what a duplex edge has made already.
    seen = Counter(frozenset((e["source"], e["target"])) for e in edges)
    assume(edges and max(seen.values()) == 1)
    return {"schema": "moe-topology/1", "nodes": nodes, "edges": edges}


def _routed(file):
    topology = load_topology(file)
    return topology, build_routes(topology)


def _shares(routes, source, target):
    links, numerators = routes.pair(source, target)
    named = routes.topology.links
    return {
        ("group", named[a].link_class.removeprefix("group:"))
        if named[a].members
        else (named[a].source, named[a].target): Fraction(n, routes.q)
        for a, n in zip(links.tolist(), numerators.tolist(), strict=True)
    }


@MANY
@given(clusters())
def test_routes_are_those_of_the_rules_walked_naively(file):
    """Every share equals the oracle's; a cluster is refused iff a GPU is alone."""
    oracle = Cluster(file)
    assume(len(oracle.gpus) > 0)
    expected = {
        (s, d): oracle.route(a, b)
        for s, a in enumerate(oracle.gpus)
        for d, b in enumerate(oracle.gpus)
        if s != d
    }
    alone = [
        s
        for s in range(len(oracle.gpus))
        if all(expected[s, d] is None for d in range(len(oracle.gpus)) if s != d)
    ]
    if alone:
        with pytest.raises(TopologyError):
            _routed(file)
        return
    topology, routes = _routed(file)
    assert [gpu.id for gpu in topology.gpus] == oracle.gpus
    for (s, d), way in expected.items():
        if way is None:
            assert not routes.reachable_GG[s, d]
            with pytest.raises(TopologyError, match="has no path"):
                routes.pair(s, d)
        else:
            assert _shares(routes, s, d) == oracle.with_groups(way)


def _usable(file):
    """The routes of a cluster, or none: the law above says when it is refused."""
    try:
        return _routed(file)[1]
    except TopologyError:
        assume(False)


def _transfers(routes, seed, high):
    rng = np.random.default_rng(seed)
    shape = (2, *routes.reachable_GG.shape)
    moved = rng.integers(0, high, shape) * (rng.random(shape) < 0.7)
    return np.where(routes.reachable_GG, moved, 0)


@FEW
@given(clusters(), st.integers(0, 2**32 - 1))
def test_loads_are_sums_of_pairs_in_small_and_in_large_integers(file, seed):
    """loads(X) = Σ X · φ: by pairs, by incidence, in int64 and beyond 64 bits."""
    routes = _usable(file)
    transfers = _transfers(routes, seed, 1000)
    count = routes.topology.gpu_count
    expected = np.zeros((2, len(routes.topology.links)), dtype=object)
    indptr, links, numerators = routes.incidence()
    for s in range(count):
        for d in range(count):
            row = slice(indptr[s * count + d], indptr[s * count + d + 1])
            if s == d or not routes.reachable_GG[s, d]:
                assert links[row].size == 0
                continue
            link, numerator = routes.pair(s, d)
            assert (links[row] == link).all() and (numerators[row] == numerator).all()
            for a, n in zip(link.tolist(), numerator.tolist(), strict=True):
                for half in range(2):
                    expected[half, a] += int(transfers[half, s, d]) * n
    small = routes.loads(transfers)
    assert small.dtype == np.int64 or routes.q > 2**30
    assert (small == expected).all()
    huge = 10**30
    large = routes.loads(transfers.astype(object) * huge)
    assert large.dtype == object or not transfers.any()
    assert (large == expected * huge).all()


@FEW
@given(clusters(), st.integers(0, 2**32 - 1))
def test_what_enters_a_switch_leaves_it(file, seed):
    """Flow is conserved at every node that is no GPU; GPUs send what they send."""
    routes = _usable(file)
    transfers = _transfers(routes, seed, 1000)[0]
    load = routes.loads(transfers).tolist()
    balance = Counter()
    for link in routes.topology.links:
        if not link.members:
            balance[link.source] += load[link.index]
            balance[link.target] -= load[link.index]
    for g, gpu in enumerate(routes.topology.gpus):
        sent = int(transfers[g].sum()) - int(transfers[:, g].sum())
        assert balance.pop(gpu.id, 0) == sent * routes.q
    assert not any(balance.values())


@FEW
@given(clusters(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_and_edges_changes_no_share(file, random):
    """Permuting a file renumbers GPUs and links and changes nothing else."""
    routes = _usable(file)
    nodes, edges = file["nodes"].copy(), file["edges"].copy()
    random.shuffle(nodes)
    random.shuffle(edges)
    topology, other = _routed({**file, "nodes": nodes, "edges": edges})
    place = {gpu.id: index for index, gpu in enumerate(topology.gpus)}
    gpus = routes.topology.gpus
    for s, d in zip(*np.nonzero(routes.reachable_GG), strict=True):
        there = _shares(other, place[gpus[s].id], place[gpus[d].id])
        assert there == _shares(routes, s, d)


@FEW
@given(clusters(), st.sampled_from([0.001, 0.7, 3]))
def test_scaling_every_bandwidth_changes_beta_and_no_share(file, factor):
    """Shares depend on proportions only; β scales with the bandwidths."""
    routes = _usable(file)
    exact = Fraction(str(factor))
    scaled = [
        {**edge, "bandwidth_gbs": Fraction(str(edge["bandwidth_gbs"])) * exact}
        for edge in file["edges"]
    ]
    topology, other = _routed({**file, "edges": scaled})
    assert other.q == routes.q
    for old, new in zip(routes.topology.links, topology.links, strict=True):
        assert new.bytes_per_s == old.bytes_per_s * exact
    for s, d in zip(*np.nonzero(routes.reachable_GG), strict=True):
        assert _shares(other, s, d) == _shares(routes, s, d)


@FEW
@given(clusters())
def test_q_is_the_least_common_denominator(file):
    """No smaller Q would do: Q and all numerators have no common divisor."""
    routes = _usable(file)
    numerators = routes.bundles.numerators_X
    assert routes.q >= 1
    assert np.gcd.reduce([routes.q, *numerators.tolist()]) == 1
