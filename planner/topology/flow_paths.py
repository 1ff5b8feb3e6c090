"""The links of a transfer through the fabric under a single-path policy (rule 6)."""

from collections import Counter
from fractions import Fraction

from planner.errors import TopologyError
from planner.topology.graph import ClusterTopology
from planner.topology.policies.base import PathPolicy, Step
from planner.topology.sections import FABRIC, Hop, Shares, hops_from, section


class FlowPaths:
    """Walks the flows of pairs of endpoints; distances are kept per destination."""

    def __init__(self, topology: ClusterTopology, policy: PathPolicy) -> None:
        self._topology, self._policy = topology, policy
        self._part = section(topology, FABRIC)
        self._hops_to: dict[str, dict[str, int]] = {}
        self._known: dict[tuple[str, str], Shares] = {}
        self._cables: dict[str, list[Hop]] = {}

    def between(self, start: str, end: str) -> Shares:
        """Return the share of a transfer on every link from endpoint to endpoint.

        Raises
        ------
        TopologyError
            Tables that miss the destination or lead in a circle.
        """
        if (start, end) not in self._known:
            flows = self._policy.flows
            walked = Counter(
                link for flow in range(flows) for link in self._walk(start, end, flow)
            )
            self._known[start, end] = tuple(
                (link, Fraction(count, flows)) for link, count in walked.items()
            )
        return self._known[start, end]

    def _walk(self, start: str, end: str, flow: int) -> list[int]:
        links: list[int] = []
        step = Step(node=start, source=start, target=end, flow=flow, spread=1)
        seen = set()
        while step.node != end:
            if step.node in seen:
                raise TopologyError(
                    f"leads in a circle on the way to {end}",
                    where=f"{self._topology.name}: /graph/routing/tables",
                    value=step.node,
                    fix="correct the tables of the switches on it",
                )
            seen.add(step.node)
            ports, every = self._ports(step.node, end)
            node, link, _ = self._policy.next_hop(step, ports, every)
            links.append(link)
            step = Step(
                node=node,
                source=start,
                target=end,
                flow=flow,
                spread=step.spread * len(ports),
            )
        return links

    def _ports(self, node: str, end: str) -> tuple[list[Hop], list[Hop]]:
        """Return the cables on from ``node``: the shortest ways, and all."""
        if node not in self._cables:
            self._cables[node] = [
                hop
                for hop in sorted(self._part.out[node])
                for _ in range(self._topology.links[hop[1]].cables)
            ]
        hops = self._hops_to.get(end)
        if hops is None:
            hops = self._hops_to[end] = hops_from(self._part, end, forward=False)
        transit = self._part.transit
        every = [
            hop for hop in self._cables[node] if hop[0] == end or hop[0] in transit
        ]
        ahead = hops[node] - 1
        return [hop for hop in every if hops.get(hop[0]) == ahead], every
