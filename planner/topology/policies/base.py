"""The family of single-path policies: at every node, one next hop."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from planner.errors import UsageError
from planner.registry import Registry
from planner.topology.graph import ClusterTopology
from planner.topology.sections import Hop

_WRITTEN = re.compile(r"(?P<name>\w+)(?:\((?P<values>[^()]*)\))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where a flow stands.

    Attributes
    ----------
    node
        Endpoint or switch that it leaves.
    source, target
        Endpoints (NICs, or GPUs wired to a switch) of the flow.
    flow
        Number of the flow among those of the pair, from 0.
    spread
        Product of the numbers of ports that were chosen from so far.
    """

    node: str
    source: str
    target: str
    flow: int
    spread: int


class PathPolicy(Protocol):
    """Chooses paths; ``flows`` equal flows make one transfer."""

    flows: int

    def next_hop(self, step: Step, ports: Sequence[Hop], every: Sequence[Hop]) -> Hop:
        """Return the cable that the flow leaves by.

        ``ports`` lie on shortest paths, ``every`` lead on at all; a bundle of n
        cables stands in them n times. Raises TopologyError without a way on.
        """
        ...


PATH_POLICIES: Registry[Callable[[ClusterTopology, tuple[int, ...]], PathPolicy]] = (
    Registry("routing policy")
)
"""Makes a policy from a cluster and the integers written behind its name."""


def path_policy(written: str, topology: ClusterTopology) -> PathPolicy | None:
    """Return the policy that is ``written``; None for ``ecmp_fractional``.

    Raises
    ------
    UsageError
        An unknown name, or values that the policy does not take.
    """
    match = _WRITTEN.fullmatch(written.strip())
    name = match["name"] if match else written
    if written.strip() == "ecmp_fractional":
        return None
    if match is None or name not in PATH_POLICIES.names():
        known = ", ".join(("ecmp_fractional", *PATH_POLICIES.names()))
        raise UsageError(f"routing policy {written!r} is unknown; supported: {known}")
    try:
        values = tuple(
            int(value) for value in (match["values"] or "").split(",") if value
        )
    except ValueError:
        raise UsageError(
            f"routing policy {written!r}: values in brackets are integers, as in "
            "ecmp_hash(7)"
        ) from None
    return PATH_POLICIES.get(name)(topology, values)
