"""Rings, tori and GPUs with several NICs, and their optima by enumeration.

Routes come from ``tests/oracles/routes.py`` (every shortest path), the value of a
placement from a linear program over every flow; nothing of the planner is used.
"""

import random

import numpy as np

from tests.oracles import brute_force
from tests.oracles.brute_force import Case
from tests.oracles.routes import Cluster, exact


def _node(name, kind, **more):
    return {"id": name, "kind": kind, **more}


def _gpu(number, host):
    return _node(
        f"g{number}", "gpu", host=host, nvlink_domain=f"d{host}", memory_bytes=10**6
    )


def _edge(source, target, kind, gbs):
    return {
        "source": source,
        "target": target,
        "kind": kind,
        "duplex": "full",
        "bandwidth_gbs": gbs,
    }


def _cluster(name, nodes, edges):
    return {
        "schema": "moe-topology/1",
        "directed": True,
        "multigraph": False,
        "graph": {"name": name, "bandwidth_basis": "effective"},
        "nodes": nodes,
        "edges": edges,
    }


def switch_graph(rng, cables):
    """One GPU with a NIC at every switch; switches are joined as ``cables`` says."""
    nodes, edges = [], []
    for at in sorted({end for cable in cables for end in cable}):
        nodes += [
            _node(f"s{at}", "switch", tier=0),
            _gpu(at, f"h{at}"),
            _node(f"n{at}", "nic", host=f"h{at}"),
        ]
        edges += [
            _edge(f"g{at}", f"n{at}", "pcie", 32),
            _edge(f"n{at}", f"s{at}", "ib", rng.choice([10, 25, 50])),
        ]
    edges += [
        _edge(f"s{a}", f"s{b}", "ib", rng.choice([5, 8, 12, 20])) for a, b in cables
    ]
    return _cluster("switches", nodes, edges)


def ring(rng, length):
    """Switches in a ring: between two of them there are two ways round."""
    return switch_graph(rng, [(at, (at + 1) % length) for at in range(length)])


def ladder(rng, length):
    """Two rows of switches with rungs: a grid."""
    rails = [(2 * at + side, 2 * at + side + 2) for at in range(length - 1)
             for side in (0, 1)]  # fmt: skip
    return switch_graph(rng, rails + [(2 * at, 2 * at + 1) for at in range(length)])


def several_nics(rng):
    """Two hosts of two GPUs; each GPU has two NICs, to two leaves under a spine."""
    nodes = [_node(f"leaf{at}", "switch", tier=0) for at in (0, 1)]
    nodes.append(_node("spine", "switch", tier=1))
    edges = [_edge(f"leaf{at}", "spine", "ib", rng.choice([4, 7, 12])) for at in (0, 1)]
    for number in range(4):
        host = f"h{number // 2}"
        if number % 2 == 0:
            nodes.append(_node(f"v{host}", "nvswitch", host=host))
        nodes.append(_gpu(number, host))
        edges.append(_edge(f"g{number}", f"v{host}", "nvlink", rng.choice([15, 40])))
        for which in (0, 1):
            nic = f"n{number}{which}"
            nodes.append(_node(nic, "nic", host=host))
            edges.append(_edge(f"g{number}", nic, "pcie", 16))
            leaf = f"leaf{(number + which) % 2}"
            edges.append(_edge(nic, leaf, "ib", rng.choice([5, 10, 25])))
    return _cluster("nics", nodes, edges)


def random_case(seed):
    """Return 3 or 4 GPUs on a ring, a grid or with several NICs; 4 to 6 experts."""
    rng = random.Random(seed)
    topology = [
        lambda: ring(rng, 3),
        lambda: ring(rng, 4),
        lambda: ladder(rng, 2),
        lambda: several_nics(rng),
    ][seed % 4]()
    gpus = sum(node["kind"] == "gpu" for node in topology["nodes"])
    slots = 2 if gpus == 3 else rng.choice([1, 2])
    # Few placements: all are looked at.
    experts = 5 if (gpus, slots) == (4, 2) else gpus * slots - rng.choice([0, 1])
    return Case(
        topology=topology,
        counts=tuple(rng.randrange(1, 60) for _ in range(experts)),
        slots=slots,
        message_bytes=rng.choice([(1, 2), (3, 1)]),
        objective="link_time",
        memory=(10**6,) * gpus,
    )


def legs_of(case):
    """Return per leg, for every link, the seconds of a token from s served at d."""
    cluster = Cluster(case.topology)
    gpus = cluster.gpus
    ways = {(a, b): cluster.route(a, b) for a in gpus for b in gpus if a != b}
    legs = []
    for leg in (0, 1):
        rows = []
        for link in cluster.graph.edges:
            width = exact(cluster.graph.edges[link]["bandwidth_gbs"]) * 10**9
            row = [
                [
                    ways[(a, b) if leg == 0 else (b, a)].get(link, 0) if a != b else 0
                    for b in gpus
                ]
                for a in gpus
            ]
            if any(any(shares) for shares in row):
                rows.append(np.asarray(row, dtype=float) * case.message_bytes[leg]
                            / float(width))  # fmt: skip
        legs.append(rows)
    return legs


def optimum(case):
    """Return the least value of all placements, each with its best split."""
    return brute_force.optimum(case, legs_of(case)).value
