"""``ecmp_hash(SEED[,FLOWS])``: every flow takes the path that a hash picks.

What RoCE switches do with the five-tuple: the paths of a flow are equally good, and
some links get more flows than others. Every seed is one draw of the cluster's hash
functions and port numbers.
"""

from collections.abc import Sequence
from hashlib import blake2b

from planner.errors import UsageError
from planner.topology.graph import ClusterTopology
from planner.topology.policies.base import PATH_POLICIES, Step
from planner.topology.sections import Hop


class EcmpHash:
    """Hashes (seed, switch, source, target, flow), so switches are independent."""

    def __init__(self, seed: int, flows: int) -> None:
        self.flows = flows
        self._seed = seed

    def next_hop(self, step: Step, ports: Sequence[Hop], every: Sequence[Hop]) -> Hop:
        """Return the port that the hash falls on."""
        if len(ports) == 1:
            return ports[0]
        tuple_ = f"{self._seed}|{step.node}|{step.source}|{step.target}|{step.flow}"
        drawn = int.from_bytes(blake2b(tuple_.encode(), digest_size=8).digest(), "big")
        return ports[drawn % len(ports)]


def _make(topology: ClusterTopology, values: tuple[int, ...]) -> EcmpHash:
    if len(values) > 2 or any(value < 0 for value in values):
        raise UsageError(
            "routing policy ecmp_hash takes a seed and a number of flows per pair, "
            "both at least 0: ecmp_hash(7) or ecmp_hash(7,4)"
        )
    seed, flows = (*values, *(0, 1)[len(values) :])
    if flows < 1:
        raise UsageError("routing policy ecmp_hash: a pair has at least 1 flow")
    return EcmpHash(seed, flows)


PATH_POLICIES.register("ecmp_hash")(_make)
