"""What looks wrong in a cluster but is legal: one sentence each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from planner.topology.graph import ClusterTopology
from planner.topology.models import Edge, TopologyFile
from planner.topology.nics import Endpoints

FAR = 3
"""From this affinity on (NODE, SYS) a NIC is not near a GPU."""


def warned(
    topology: ClusterTopology, record: TopologyFile, edges: Sequence[Edge]
) -> ClusterTopology:
    """Return the cluster with its warnings filled in."""
    found = [
        *_one_way(topology),
        *_ports(topology),
        *_slow_pcie(topology),
        *_far_nics(topology),
        *_unequal(topology),
        *_unused(topology, record),
        *_spine_nics(topology),
        *_two_way_groups(edges),
    ]
    return replace(topology, warnings=tuple(found))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _one_way(topology: ClusterTopology) -> list[str]:
    pairs = topology.edge_index
    lone = [f"{s} -> {t}" for s, t in pairs if (t, s) not in pairs]
    return [f"edges without a way back: {_listed(lone)}"] if lone else []


def _ports(topology: ClusterTopology) -> list[str]:
    cables: Counter[str] = Counter()
    for link in topology.links:
        if not link.members:
            cables[link.source] += link.cables
    full = [
        f"{node} ({cables[node]} cables on {data['ports']} ports)"
        for node, data in topology.graph.nodes(data=True)
        if data.get("ports") and cables[node] > data["ports"]
    ]
    return [f"more cables than ports: {_listed(full)}"] if full else []


def _slow_pcie(topology: ClusterTopology) -> list[str]:
    port: dict[str, Fraction] = {}
    slot: dict[str, Fraction] = {}
    kinds = topology.graph.nodes
    for link in topology.links:
        if link.members or kinds[link.source]["kind"] != "nic":
            continue
        inside = link.kind in ("pcie", "c2c")
        side = slot if inside else port
        side[link.source] = (
            side.get(link.source, Fraction(0)) + link.nominal_bytes_per_s
        )
    slow = [nic for nic, rate in port.items() if nic in slot and slot[nic] < rate]
    return [f"NICs faster than their PCIe: {_listed(slow)}"] if slow else []


def _far_nics(topology: ClusterTopology) -> list[str]:
    endpoints = Endpoints(topology)
    if not endpoints.any_fabric:
        return []
    far = []
    for gpu in topology.gpus:
        near = endpoints.nearest(gpu.id)
        if near is None or near >= FAR:
            far.append(gpu.id)
    return [f"GPUs without a near NIC: {_listed(far)}"] if far else []


def _unequal(topology: ClusterTopology) -> list[str]:
    found = []
    sizes = sorted({len(members) for members in topology.domains})
    if len(sizes) > 1:
        found.append(f"domains of unequal size ({_numbers(sizes)} GPUs): rails wrap")
    rails = Counter(
        data["rail"]
        for _, data in topology.graph.nodes(data=True)
        if data["kind"] == "nic" and data["role"] == "compute" and "rail" in data
    )
    if len(set(rails.values())) > 1:
        found.append(
            f"rails of unequal size ({_numbers(sorted(set(rails.values())))} NICs)"
        )
    return found


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(str(value) for value in values)


def _unused(topology: ClusterTopology, record: TopologyFile) -> list[str]:
    found = []
    used = {gpu.profile for gpu in topology.gpus}
    profiles = sorted(set(record.graph.profiles) - used)
    if profiles:
        found.append(f"profiles that no GPU uses: {_listed(profiles)}")
    groups = {link.link_class for link in topology.links if link.members}
    lone = [
        name for name in record.graph.capacity_groups if f"group:{name}" not in groups
    ]
    if lone:
        found.append(f"capacity groups without an edge: {_listed(sorted(lone))}")
    assumed = [
        entry.field
        for entry in record.graph.provenance
        if entry.basis == "assumed" and "bandwidth" in entry.field
    ]
    if assumed:
        found.append(f"bandwidths that are assumed: {_listed(assumed)}")
    return found


def _spine_nics(topology: ClusterTopology) -> list[str]:
    kinds = topology.graph.nodes
    tiers: dict[int, list[str]] = {}
    for start, end in topology.edge_index:
        if kinds[start]["kind"] == "nic" and kinds[end]["kind"] == "switch":
            tiers.setdefault(kinds[end].get("tier", 0), []).append(start)
    high = [nic for tier, nics in tiers.items() if tier > 0 for nic in nics]
    return [f"NICs on a switch above the leaves: {_listed(high)}"] if high else []


def _two_way_groups(edges: Sequence[Edge]) -> list[str]:
    both = sorted(
        {e.capacity_group for e in edges if e.capacity_group and e.duplex == "full"}
    )
    if not both:
        return []
    return [
        f"capacity groups of full-duplex edges add both directions up: {_listed(both)}"
    ]
