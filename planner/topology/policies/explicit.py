"""``explicit``: forwarding tables that the file gives, as ``dump_fts`` prints them.

``graph.routing.tables`` maps a switch to {destination endpoint: next node}. A node
with one neighbour on shortest paths needs no entry.
"""

from collections.abc import Mapping, Sequence

from planner.errors import TopologyError, UsageError
from planner.topology.graph import ClusterTopology
from planner.topology.policies.base import PATH_POLICIES, Step
from planner.topology.sections import Hop


class Explicit:
    """Follows the tables, shortest or not."""

    flows = 1

    def __init__(self, name: str, tables: Mapping[str, Mapping[str, str]]) -> None:
        self._name, self._tables = name, tables

    def next_hop(self, step: Step, ports: Sequence[Hop], every: Sequence[Hop]) -> Hop:
        """Return the hop that the node's table names for the destination."""
        wanted = self._tables.get(step.node, {}).get(step.target)
        ahead = {port[0]: port for port in every}
        if wanted is None and len({port[0] for port in ports}) == 1:
            wanted = ports[0][0]
        where = f"{self._name}: /graph/routing/tables/{step.node}/{step.target}"
        if wanted is None:
            raise TopologyError(
                "has several shortest ways on and no entry for this destination",
                where=where,
                value=step.node,
                fix="add the next node, or plan with --routing ecmp_fractional",
            )
        if wanted not in ahead:
            raise TopologyError(
                f"is no neighbour of {step.node} in the fabric",
                where=where,
                value=wanted,
                fix=f"name one of {', '.join(sorted(ahead))}",
            )
        return ahead[wanted]


def _make(topology: ClusterTopology, values: tuple[int, ...]) -> Explicit:
    if values:
        raise UsageError("routing policy explicit takes no values")
    if not topology.routing_tables:
        raise UsageError(
            f"routing policy explicit: {topology.name} has no graph.routing.tables"
        )
    return Explicit(topology.name, topology.routing_tables)


PATH_POLICIES.register("explicit")(_make)
