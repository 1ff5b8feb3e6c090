"""Fat trees of hosts whose GPUs share NICs: two tiers, or one switch.

GPU g of a host uses NIC g · nics / gpus; the GPUs of a NIC hang with it on one
PCIe switch. Hosts fill the leaves in order; every leaf has ``uplink_cables`` to
every spine.
"""

from planner.topology.generators.base import (
    GENERATORS,
    Generator,
    Json,
    Parameters,
    Ports,
    ScaleUp,
    Size,
    WrongParameter,
    check_size,
    duplex,
    joined,
    numbered,
    switched_host,
)
from planner.topology.models import CountOrZero, EdgeKind, Positive


class FatTree(Parameters):
    """Parameters of ``fat_tree``; ``spines`` 0 is a single switch."""

    nodes: Size
    nvlink: ScaleUp
    nics_per_node: Size = 1
    pcie_gbs: Positive
    nic_gbs: Positive
    link: EdgeKind = "ib"
    hosts_per_leaf: Size
    ports: Ports
    spines: CountOrZero = 0
    uplink_cables: Ports = 1


def make(parameters: FatTree) -> Json:
    """Return hosts, leaves and spines."""
    leaves = -(-parameters.nodes // parameters.hosts_per_leaf)
    _check(parameters, leaves)
    parts = [
        _host(host, f"leaf{number // parameters.hosts_per_leaf}", parameters)
        for number, host in enumerate(numbered("n", parameters.nodes))
    ]
    parts.append({"nodes": _switches("leaf", leaves, 0, parameters), "edges": []})
    total = parameters.nic_gbs * parameters.uplink_cables
    cables = parameters.uplink_cables
    edges = [
        duplex(f"leaf{leaf}", f"spine{spine}", parameters.link, total, cables=cables)
        for leaf in range(leaves)
        for spine in range(parameters.spines)
    ]
    nodes = _switches("spine", parameters.spines, 1, parameters)
    return joined([*parts, {"nodes": nodes, "edges": edges}])


def _host(host: str, leaf: str, parameters: FatTree) -> Json:
    made = switched_host(host, parameters, parameters.nvlink)
    each = parameters.gpus_per_node // parameters.nics_per_node
    for number in range(parameters.nics_per_node):
        nic, hub = f"{host}/nic{number}", f"{host}/pcie{number}"
        made["nodes"] += [
            {"id": nic, "kind": "nic", "host": host, "rail": number},
            {"id": hub, "kind": "pcie_switch", "host": host},
        ]
        made["edges"] += [
            duplex(f"{host}/gpu{gpu}", hub, "pcie", parameters.pcie_gbs)
            for gpu in range(number * each, (number + 1) * each)
        ]
        made["edges"] += [
            duplex(hub, nic, "pcie", parameters.pcie_gbs),
            duplex(nic, leaf, parameters.link, parameters.nic_gbs),
        ]
    return made


def _switches(prefix: str, count: int, tier: int, parameters: FatTree) -> list[Json]:
    return [
        {
            "id": f"{prefix}{number}",
            "kind": "switch",
            "tier": tier,
            "ports": parameters.ports,
        }
        for number in range(count)
    ]


def _check(parameters: FatTree, leaves: int) -> None:
    check_size(parameters.nodes, parameters.gpus_per_node)
    if parameters.gpus_per_node % parameters.nics_per_node:
        raise WrongParameter(
            "nics_per_node",
            f"must divide gpus_per_node ({parameters.gpus_per_node})",
            "give every NIC the same number of GPUs",
        )
    if leaves > 1 and not parameters.spines:
        raise WrongParameter(
            "spines", f"must join the {leaves} leaves", "give at least 1"
        )
    down = parameters.hosts_per_leaf * parameters.nics_per_node
    leaf = down + parameters.spines * parameters.uplink_cables
    spine = leaves * parameters.uplink_cables
    for field, used, kind in (
        ("hosts_per_leaf", leaf, "leaf"),
        ("spines", spine, "spine"),
    ):
        if used > parameters.ports:
            raise WrongParameter(
                field,
                f"needs {used} ports of a {kind}, which has {parameters.ports}",
                "use fewer hosts or cables, or larger switches",
            )


GENERATORS.register("fat_tree")(Generator(parameters=FatTree, make=make))
