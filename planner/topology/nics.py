"""Which NIC a GPU uses (rule 5, ``local_nic``) and how it gets there."""

from dataclasses import dataclass
from fractions import Fraction

from planner.topology.graph import ClusterTopology
from planner.topology.sections import (
    ACCESS,
    FABRIC,
    Hop,
    Shares,
    hops_from,
    section,
    shortest_shares,
)

AFFINITY = {"PIX": 0, "PXB": 1, "PHB": 2, "NODE": 3, "SYS": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One way of a GPU into (or out of) the fabric.

    ``node`` is the NIC, or the GPU itself if a switch is wired to it; ``share``
    is its part of the GPU's transfers; ``access`` are the links between the two.
    """

    node: str
    share: Fraction
    access: Shares


class Endpoints:
    """The ports of every GPU of a cluster."""

    def __init__(self, topology: ClusterTopology) -> None:
        self._graph = topology.graph
        self._nodes = topology.graph.nodes
        self.access = section(topology, ACCESS)
        self.fabric = section(topology, FABRIC)
        self._nics: dict[str, set[str]] = {}
        for node, data in topology.graph.nodes(data=True):
            if data["kind"] == "nic" and data["role"] == "compute":
                self._nics.setdefault(data["host"], set()).add(node)

    @property
    def any_fabric(self) -> bool:
        """Whether some NIC or GPU is wired to a switch or to another NIC."""
        return any(node not in self.fabric.transit for node in self.fabric.out)

    def ports(self, gpu: str, *, leaving: bool) -> tuple[Port, ...]:
        """Return the ports that ``gpu`` sends by, or receives by; () if none."""
        hops = self.fabric.out if leaving else self.fabric.back
        if gpu in hops:
            return (Port(node=gpu, share=Fraction(1), access=()),)
        ranked = self._ranked(gpu, hops, leaving)
        if not ranked:
            return ()
        best = min(rank for rank, _, _ in ranked)
        chosen = [(nic, rate) for rank, nic, rate in ranked if rank == best]
        total = sum((rate for _, rate in chosen), Fraction(0))
        return tuple(
            Port(node=nic, share=rate / total, access=self._path(gpu, nic, leaving))
            for nic, rate in chosen
        )

    def nearest(self, gpu: str) -> int | None:
        """Return the affinity rank of the NICs that ``gpu`` sends by."""
        if gpu in self.fabric.out:
            return 0
        ranked = self._ranked(gpu, self.fabric.out, True)
        return min((rank for rank, _, _ in ranked), default=None)

    def _ranked(
        self, gpu: str, hops: dict[str, list[Hop]], leaving: bool
    ) -> list[tuple[int, str, Fraction]]:
        """Affinity rank, id and port rate of every NIC with a live port."""
        ours = self._nics.get(self._nodes[gpu]["host"], set())
        said = self._said(gpu, leaving)
        found = []
        for nic, distance in hops_from(self.access, gpu, forward=leaving).items():
            if nic in ours and nic in hops:
                rate = sum((weight for _, _, weight in hops[nic]), Fraction(0))
                found.append((said.get(nic, distance - 1), nic, rate))
        return sorted(found, key=lambda entry: entry[1])

    def _said(self, gpu: str, leaving: bool) -> dict[str, int]:
        """Affinities that edges between ``gpu`` and NICs give."""
        edges = self._graph.succ[gpu] if leaving else self._graph.pred[gpu]
        return {
            other: AFFINITY[data["affinity"]]
            for other, data in edges.items()
            if "affinity" in data
        }

    def _path(self, gpu: str, nic: str, leaving: bool) -> Shares:
        ends = (gpu, nic) if leaving else (nic, gpu)
        shares = shortest_shares(self.access, *ends)
        return shares or ()
