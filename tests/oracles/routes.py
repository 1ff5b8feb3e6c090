"""Routes by the words of the rules, naively: every pair, every shortest path.

Works on the JSON of a cluster, not on the planner's classes. Slow on purpose:
networkx enumerates all shortest paths, fractions do the rest.
"""

from fractions import Fraction
from itertools import pairwise

import networkx as nx

Way = dict[tuple[str, str], Fraction]
AFFINITY = {"PIX": 0, "PXB": 1, "PHB": 2, "NODE": 3, "SYS": 4}


def exact(number):
    return Fraction(str(number))


class Cluster:
    """What is up, as a directed graph with the attributes of the file."""

    def __init__(self, file):
        self.nodes = {n["id"]: n for n in file["nodes"] if n.get("state") != "down"}
        self.graph = nx.DiGraph()
        self.graph.add_nodes_from(self.nodes)
        self.groups = {}
        for edge in file["edges"]:
            start, end = edge["source"], edge["target"]
            if edge.get("state") == "down" or not {start, end} <= self.nodes.keys():
                continue
            ways = [(start, end)]
            if edge.get("duplex"):
                ways.append((end, start))
            group = edge.get("capacity_group")
            if edge.get("duplex") == "half" and group is None:
                group = f"{start} - {end}"
            for way in ways:
                self.graph.add_edge(*way, **edge)
                if group is not None:
                    self.groups.setdefault(group, []).append(way)
        self.gpus = [n for n, data in self.nodes.items() if data["kind"] == "gpu"]

    def kind(self, node):
        return self.nodes[node]["kind"]

    def host(self, node):
        return self.nodes[node].get("host")

    def domain(self, gpu):
        """Rule 2."""
        named = self.nodes[gpu].get("nvlink_domain")
        if named is not None:
            return ("named", named)
        joined = nx.Graph()
        joined.add_node(gpu)
        joined.add_edges_from(
            (a, b)
            for a, b, data in self.graph.edges(data=True)
            if data["kind"] in ("nvlink", "xgmi")
        )
        return ("joined", frozenset(nx.node_connected_component(joined, gpu)))

    def walk(self, start, end, transit, edge_kinds=None):
        """One section (rules 4 and 6): {link: share}, or None without a path."""
        if start == end:
            return {}
        allowed = nx.DiGraph()
        allowed.add_nodes_from([start, end])
        for a, b, data in self.graph.edges(data=True):
            if edge_kinds is not None and data["kind"] not in edge_kinds:
                continue
            leaves_well = a == start or self.kind(a) in transit
            ends_well = b == end or self.kind(b) in transit
            # In the fabric only two NICs may be wired to each other directly.
            lone = transit == {"switch"} and {a, b} == {start, end}
            if lone and {self.kind(a), self.kind(b)} != {"nic"}:
                continue
            if leaves_well and ends_well:
                allowed.add_edge(a, b, width=exact(data["bandwidth_gbs"]))
        if not nx.has_path(allowed, start, end):
            return None
        paths = list(nx.all_shortest_paths(allowed, start, end))
        nexts = {}
        for path in paths:
            for a, b in pairwise(path):
                nexts.setdefault(a, set()).add(b)
        shares = {}
        for path in paths:
            share = Fraction(1)
            for a, b in pairwise(path):
                width = sum(allowed[a][c]["width"] for c in nexts[a])
                share *= allowed[a][b]["width"] / width
            for a, b in pairwise(path):
                shares[a, b] = shares.get((a, b), 0) + share
        return shares

    def endpoints(self, gpu, leaving):
        """Rule 5: [(node, share, access links)]."""
        step = self.graph.successors if leaving else self.graph.predecessors
        if any(self.kind(other) == "switch" for other in step(gpu)):
            return [(gpu, Fraction(1), {})]
        found = []
        for nic in self.nodes:
            data = self.nodes[nic]
            if data["kind"] != "nic" or data.get("role", "compute") != "compute":
                continue
            if data["host"] != self.host(gpu):
                continue
            ends = (gpu, nic) if leaving else (nic, gpu)
            access = self.walk(*ends, {"pcie_switch", "cpu"})
            rate = sum(
                exact(
                    self.graph.edges[(nic, o) if leaving else (o, nic)]["bandwidth_gbs"]
                )
                for o in step(nic)
                if self.kind(o) in ("switch", "nic")
            )
            if access is None or rate == 0:
                continue
            said = (
                self.graph.edges[ends].get("affinity")
                if ends in self.graph.edges
                else None
            )
            rank = AFFINITY[said] if said else self.hops(*ends) - 1
            found.append((rank, nic, rate, access))
        best = [entry for entry in found if entry[0] == min(f[0] for f in found)]
        total = sum(rate for _, _, rate, _ in best)
        return [(nic, rate / total, access) for _, nic, rate, access in best]

    def hops(self, start, end):
        inside = nx.DiGraph(
            (a, b)
            for a, b in self.graph.edges
            if (a == start or self.kind(a) in ("pcie_switch", "cpu"))
            and (b == end or self.kind(b) in ("pcie_switch", "cpu"))
        )
        return nx.shortest_path_length(inside, start, end)

    def route(self, source, target):
        """All sections of one transfer: {link: share}, or None."""
        if self.domain(source) == self.domain(target):
            way = self.walk(source, target, {"nvswitch"}, {"nvlink", "xgmi"})
            if way is not None:
                return way
        if self.host(source) == self.host(target):
            way = self.walk(
                source, target, {"pcie_switch", "cpu"}, {"pcie", "upi", "c2c"}
            )
            if way is not None:
                return way
        pairs = []
        for start, share, access in self.endpoints(source, True):
            for end, other_share, other_access in self.endpoints(target, False):
                across = self.walk(start, end, {"switch"})
                if across is not None:
                    pairs.append((share * other_share, [access, across, other_access]))
        if not pairs:
            return None
        total = sum(share for share, _ in pairs)
        way = {}
        for share, parts in pairs:
            for part in parts:
                for link, amount in part.items():
                    way[link] = way.get(link, 0) + amount * share / total
        return way

    def with_groups(self, way):
        """Rule 9: a capacity group carries what its members carry."""
        full = dict(way)
        for name, members in self.groups.items():
            amount = sum((way.get(link, Fraction(0)) for link in members), Fraction(0))
            if amount:
                full["group", name] = amount
        return full
