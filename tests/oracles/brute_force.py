"""Optimal placements of tiny clusters by enumeration, written apart.

Imports nothing of the planner: routes come from a walk over the file's own edges,
the value of a placement from a linear program over every flow (expert, source,
server), and all placements are considered. A placement is only skipped when prices
of links (any non-negative weights that sum to 1 per leg) prove it no better than
the best one known: its cost is then at least Σ demand · cheapest server's route.
"""

import random
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.optimize import linprog

EXPERT_BYTES = 1000
RESERVED_BYTES = 500
INNER = ("nvlink", "pcie")


@dataclass(frozen=True)
class Case:
    """A random tiny placement problem; ``counts`` are tokens per expert."""

    topology: dict[str, Any]
    counts: tuple[int, ...]
    slots: int
    message_bytes: tuple[int, int]
    objective: str
    memory: tuple[int, ...]

    @property
    def gpus(self) -> list[str]:
        return [n["id"] for n in self.topology["nodes"] if n["kind"] == "gpu"]


@dataclass(frozen=True)
class Optimum:
    """The optimal value, one optimal placement and the linear programs solved."""

    value: float
    placement: tuple[tuple[int, ...], ...]
    programs: int


def random_case(seed: int) -> Case:
    """Draw 3 or 4 GPUs in at least 2 domains with unequal links."""
    rng = random.Random(seed)
    sizes = rng.choice([(2, 1), (2, 2), (1, 1, 1), (3, 1), (2, 1, 1), (1, 2), (1, 3)])
    gpus = sum(sizes)
    experts = rng.choice([4, 5, 6])
    least = -(-experts // gpus)
    slots = min(experts, least + rng.choice([0, 0, 1, 1, 2]))
    if rng.random() < 0.05:
        slots = least - 1 or 1
    need = slots * EXPERT_BYTES + RESERVED_BYTES
    memory = [need + rng.randrange(EXPERT_BYTES) for _ in range(gpus)]
    if rng.random() < 0.12:
        memory[rng.randrange(gpus)] = need - rng.randrange(1, EXPERT_BYTES)
    skew = rng.choice([0.0, 1.0, 2.0])
    counts = tuple(
        rng.randrange(1, 40) + int(200 * rng.random() ** (1 + skew) * skew)
        for _ in range(experts)
    )
    return Case(
        topology=_random_topology(rng, sizes, memory),
        counts=counts,
        slots=slots,
        message_bytes=rng.choice([(1, 2), (7392, 14336), (3, 1)]),
        objective=rng.choice(["link_time"] * 6 + ["link_tokens", "gpu_tokens"]),
        memory=tuple(memory),
    )


def _random_topology(
    rng: random.Random, sizes: tuple[int, ...], memory: list[int]
) -> dict[str, Any]:
    fabric = _Fabric(rng)
    fabric.add_switches()
    for domain, size in enumerate(sizes):
        fabric.add_domain(domain, memory[fabric.gpus : fabric.gpus + size])
    return {
        "schema": "moe-topology/1",
        "directed": True,
        "multigraph": False,
        "graph": {
            "name": "tiny",
            "bandwidth_basis": "effective",
            "capacity_groups": fabric.groups,
        },
        "nodes": fabric.nodes,
        "edges": fabric.edges,
    }


class _Fabric:
    """A random cluster in the making: nodes, edges and limits that edges share."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []
        self.groups: dict[str, Any] = {}
        self.gpus = 0
        self._two_leaves, self._shared_host = rng.random() < 0.3, rng.random() < 0.3
        self._lopsided, self._shared_nic = rng.random() < 0.3, rng.random() < 0.3
        self._leaves = ["leaf0", "leaf1"] if self._two_leaves else ["leaf0"]

    def add_switches(self) -> None:
        """Add one leaf switch, or two under a spine."""
        self.nodes += [{"id": at, "kind": "switch", "tier": 0} for at in self._leaves]
        if self._two_leaves:
            self.nodes.append({"id": "spine", "kind": "switch", "tier": 1})
            for leaf in self._leaves:
                self._connect(leaf, "spine", "ib", [3, 8, 20, 40])

    def add_domain(self, domain: int, memory: list[int]) -> None:
        """Add GPUs of so much memory; the first two domains may share a host."""
        hosted = self._shared_host and domain < 2
        host = "h0" if hosted else f"h{domain}"
        if len(memory) > 1:
            switch = {"id": f"sw{domain}", "kind": "nvswitch", "host": host}
            self.nodes.append(switch)
        if self._shared_host and domain == 0:
            self.nodes.append({"id": "cpu", "kind": "cpu", "host": host})
        common = f"nic{self.gpus}" if self._shared_nic else ""
        for own in memory:
            gpu = self._add_gpu(domain, host, own, common)
            if len(memory) > 1:
                self._connect(gpu, f"sw{domain}", "nvlink", [4, 15, 40, 100])
            if hosted:
                self._connect(gpu, "cpu", "pcie", [3, 8, 16])

    def _add_gpu(self, domain: int, host: str, memory: int, common: str) -> str:
        """Add a GPU, and its NIC unless that is a common one and already there."""
        gpu, nic = f"g{self.gpus}", common or f"nic{self.gpus}"
        self.gpus += 1
        self.nodes.append(
            {
                "id": gpu,
                "kind": "gpu",
                "host": host,
                "nvlink_domain": f"d{domain}",
                "memory_bytes": memory,
            }
        )
        if not any(node["id"] == nic for node in self.nodes):
            self.nodes.append({"id": nic, "kind": "nic", "host": host})
            leaf = self._leaves[domain % len(self._leaves)]
            self._connect(nic, leaf, "ib", [2, 5, 10, 12.5, 25])
        self._connect(gpu, nic, "pcie", [8, 16, 32])
        return gpu

    def _connect(self, a: str, b: str, kind: str, widths: list[float]) -> None:
        """Add an edge: as wide both ways, lopsided, or half duplex."""
        rng, wide = self._rng, self._rng.choice(widths)
        edge = {"source": a, "target": b, "kind": kind, "bandwidth_gbs": wide}
        if self._lopsided and rng.random() < 0.5:
            self.edges.append(edge)
            back = {"source": b, "target": a, "bandwidth_gbs": rng.choice(widths)}
            self.edges.append({**edge, **back})
        elif kind == "pcie" and rng.random() < 0.1:
            name = f"half{len(self.groups)}"
            self.groups[name] = {"bandwidth_gbs": wide}
            self.edges.append({**edge, "duplex": "half", "capacity_group": name})
        else:
            self.edges.append({**edge, "duplex": "full"})


def optimum(case: Case, rows: Any = None) -> Optimum | None:
    """Return the best placement, or None if memory or slots allow none.

    ``rows`` replace those of the case's own links, for a cluster that is no tree.
    """
    experts, gpus = len(case.counts), len(case.gpus)
    room = [(size - RESERVED_BYTES) // EXPERT_BYTES for size in case.memory]
    if min(room) < case.slots or gpus * case.slots < experts:
        return None
    legs, unit = _scaled(rows or link_rows(case))
    choices = list(combinations(range(experts), case.slots))
    bit = np.zeros((len(choices), experts), dtype=np.int64)
    for number, choice in enumerate(choices):
        bit[number, list(choice)] = 1
    placements = np.asarray(list(product(range(len(choices)), repeat=gpus)))
    masks = sum(bit[placements[:, g]] << g for g in range(gpus))
    placements, masks = (part[(masks > 0).all(axis=1)] for part in (placements, masks))
    floor = np.zeros(len(placements))
    best, chosen, programs = float("inf"), 0, 0
    while floor.min() < best * (1 - 1e-9):
        at = int(np.argmin(floor))
        value, prices = placement_value(case, masks[at], legs)
        programs += 1
        if value < best:
            best, chosen = value, at
        cheapest = _cheapest(case, legs, prices)
        proven = sum(cheapest[e, masks[:, e]] for e in range(experts))
        floor = np.maximum(floor, proven)
        floor[at] = float("inf")
    return Optimum(
        value=best * unit,
        placement=tuple(choices[c] for c in placements[chosen]),
        programs=programs,
    )


def value_of(case: Case, placement: tuple[tuple[int, ...], ...]) -> float:
    """Return the value of one placement (a set of experts per GPU), best split."""
    masks = np.zeros(len(case.counts), dtype=np.int64)
    for gpu, held in enumerate(placement):
        for expert in held:
            masks[expert] |= 1 << gpu
    legs, unit = _scaled(link_rows(case))
    return placement_value(case, masks, legs)[0] * unit


def even_value(case: Case, placement: tuple[tuple[int, ...], ...]) -> float:
    """Return the value of one placement (duplicates allowed) with equal shares."""
    gpus = len(placement)
    moved = np.zeros((gpus, gpus))
    for expert, count in enumerate(case.counts):
        slots = [g for g, held in enumerate(placement) for e in held if e == expert]
        for server in slots:
            moved[:, server] += count / gpus / len(slots)
    legs, unit = _scaled(link_rows(case))
    worst = [max(float(np.sum(row * moved)) for row in rows) for rows in legs]
    return sum(worst) * unit


def placement_value(
    case: Case, masks: np.ndarray, legs: list[list[np.ndarray]]
) -> tuple[float, list[np.ndarray]]:
    """Return the optimal value of a placement, and the prices of each leg's rows."""
    gpus = len(case.gpus)
    flows = [
        (expert, source, server)
        for expert, mask in enumerate(masks.tolist())
        for source in range(gpus)
        for server in range(gpus)
        if mask >> server & 1
    ]
    width = len(flows) + len(legs)
    cost = np.zeros(width)
    cost[len(flows) :] = 1.0
    equal = np.zeros((len(case.counts) * gpus, width))
    demand = np.repeat(np.asarray(case.counts) / gpus, gpus)
    for column, (expert, source, _) in enumerate(flows):
        equal[expert * gpus + source, column] = 1.0
    upper = []
    for leg, rows in enumerate(legs):
        for row in rows:
            line = np.zeros(width)
            line[: len(flows)] = [row[s, d] for _, s, d in flows]
            line[len(flows) + leg] = -1.0
            upper.append(line)
    found = linprog(
        cost,
        A_ub=np.asarray(upper),
        b_ub=np.zeros(len(upper)),
        A_eq=equal,
        b_eq=demand,
        method="highs",
    )
    if found.status != 0:
        raise RuntimeError(found.message)
    prices, start = [], 0
    for rows in legs:
        price = np.maximum(-found.ineqlin.marginals[start : start + len(rows)], 0.0)
        prices.append(price / max(1.0, float(price.sum())))
        start += len(rows)
    return float(found.fun), prices


def _cheapest(
    case: Case, legs: list[list[np.ndarray]], prices: list[np.ndarray]
) -> np.ndarray:
    """Least priced cost of serving each expert from each set of GPUs."""
    gpus = len(case.gpus)
    route = sum(
        price * row
        for rows, of_leg in zip(legs, prices, strict=True)
        for row, price in zip(rows, of_leg, strict=True)
    )
    per_token = np.full(2**gpus, np.inf)
    for mask in range(1, 2**gpus):
        servers = [g for g in range(gpus) if mask >> g & 1]
        per_token[mask] = route[:, servers].min(axis=1).sum() / gpus
    return np.asarray(case.counts)[:, None] * per_token[None, :]


def _scaled(rows_of_legs: Any) -> tuple[list[list[np.ndarray]], float]:
    """Rows divided by the largest coefficient of all (a solver needs it), and it."""
    legs = [
        [np.asarray(row, dtype=np.float64) for row in rows] for rows in rows_of_legs
    ]
    unit = max(float(row.max()) for rows in legs for row in rows) or 1.0
    return [[row / unit for row in rows] for rows in legs], unit


def link_rows(case: Case) -> list[list[list[list[Fraction]]]]:
    """Return per leg the cost of one (source, server) pair on every link."""
    gpus = case.gpus
    if case.objective == "gpu_tokens":
        one, zero = Fraction(1), Fraction(0)
        return [[[[one if d == g else zero for d in range(len(gpus))] for _ in gpus]
                 for g in range(len(gpus))]]  # fmt: skip
    network = _Network(case.topology)
    legs = []
    for leg in (0, 1):
        rows = []
        for members, width in network.limits(tokens=case.objective == "link_tokens"):
            size = 1 if width is None else Fraction(case.message_bytes[leg]) / width
            rows.append(
                [
                    [
                        size
                        * sum(
                            edge in members
                            for edge in network.path(*((a, b) if leg == 0 else (b, a)))
                        )
                        for b in gpus
                    ]
                    for a in gpus
                ]
            )
        legs.append(rows)
    return legs


class _Network:
    """Unique paths of a tiny tree-like network."""

    def __init__(self, topology: dict[str, Any]) -> None:
        self.node = {node["id"]: node for node in topology["nodes"]}
        self.width: dict[tuple[str, str], Fraction] = {}
        self.kind: dict[tuple[str, str], str] = {}
        self.group: dict[tuple[str, str], str] = {}
        self.groups = topology["graph"]["capacity_groups"]
        for edge in topology["edges"]:
            there = (edge["source"], edge["target"])
            ways = [there]
            if edge.get("duplex") in ("full", "half"):
                ways.append(there[::-1])
            for way in ways:
                self.width[way] = Fraction(str(edge["bandwidth_gbs"])) * 10**9
                self.kind[way] = edge["kind"]
                if "capacity_group" in edge:
                    self.group[way] = edge["capacity_group"]

    def limits(
        self, *, tokens: bool
    ) -> list[tuple[set[tuple[str, str]], Fraction | None]]:
        """Sets of edges with their width; None for links that count tokens."""
        if tokens:
            edges = [edge for edge, kind in self.kind.items() if kind not in INNER]
            return [({edge}, None) for edge in edges]
        found = [({edge}, width) for edge, width in self.width.items()]
        for name, group in self.groups.items():
            members = {edge for edge, of in self.group.items() if of == name}
            found.append((members, Fraction(str(group["bandwidth_gbs"])) * 10**9))
        return list(found)

    def path(self, source: str, target: str) -> list[tuple[str, str]]:
        """Edges of the route: scale-up, else inside the host, else by the NICs."""
        if source == target:
            return []
        a, b = self.node[source], self.node[target]
        if a["nvlink_domain"] == b["nvlink_domain"]:
            return self._walk(source, target, {"nvlink"}, {"nvswitch"})
        if a["host"] == b["host"]:
            return self._walk(source, target, {"pcie"}, {"cpu"})
        out, back = self._nic(source), self._nic(target)
        middle = self._walk(out, back, {"ib"}, {"switch"})
        return [(source, out), *middle, (back, target)]

    def _nic(self, gpu: str) -> str:
        (nic,) = (
            b for a, b in self.width if a == gpu and self.node[b]["kind"] == "nic"
        )
        return nic

    def _walk(
        self, source: str, target: str, kinds: set[str], through: set[str]
    ) -> list[tuple[str, str]]:
        ways: list[list[tuple[str, str]]] = [[]]
        while ways:
            way = ways.pop(0)
            here = way[-1][1] if way else source
            for edge, kind in self.kind.items():
                if edge[0] != here or kind not in kinds or edge in way:
                    continue
                if edge[1] == target:
                    return [*way, edge]
                if self.node[edge[1]]["kind"] in through:
                    ways.append([*way, edge])
        raise RuntimeError(f"no path from {source} to {target}")
