"""``dmodk``: static routes of InfiniBand, one path per destination (D-mod-K).

On the way up a destination takes port ⌊d / ∏ w⌋ mod w, where d is its number among
the endpoints of the fabric, w the number of ports to choose from and ∏ w the
product over the choices before. Endpoints are numbered leaf by leaf, as OpenSM's
ftree does: numbered host by host, a rail would send everything by one spine (Zahavi,
"Fat-Trees Routing and Node Ordering Providing Contention Free Traffic for MPI Global
Collectives", 2011).
"""

from collections.abc import Sequence

from planner.errors import UsageError
from planner.topology.graph import ClusterTopology
from planner.topology.policies.base import PATH_POLICIES, Step
from planner.topology.sections import FABRIC, Hop, section


class DModK:
    """Counts destinations leaf by leaf, both in the order of the file."""

    flows = 1

    def __init__(self, topology: ClusterTopology) -> None:
        fabric = section(topology, FABRIC)
        place = {node: number for number, node in enumerate(topology.graph)}
        ends = [node for node in fabric.back if node not in fabric.transit]
        ends.sort(key=lambda end: (place[fabric.back[end][0][0]], place[end]))
        self._number = {node: number for number, node in enumerate(ends)}

    def next_hop(self, step: Step, ports: Sequence[Hop], every: Sequence[Hop]) -> Hop:
        """Return the port that the destination's number names."""
        return ports[self._number[step.target] // step.spread % len(ports)]


def _make(topology: ClusterTopology, values: tuple[int, ...]) -> DModK:
    if values:
        raise UsageError("routing policy dmodk takes no values")
    return DModK(topology)


PATH_POLICIES.register("dmodk")(_make)
