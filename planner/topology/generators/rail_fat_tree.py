"""Rail-optimised fat trees: GPU r of every host on the leaf of rail r.

A scalable unit (SU) is ``su_nodes`` hosts with one leaf per rail. Two tiers: every
leaf to every spine. Three tiers: pods of ``pod_su`` SUs have ``spines`` of their
own, and spine j of every pod meets the same cores / spines core switches.
"""

from pydantic import Field

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
from planner.topology.models import EdgeKind, Positive


class RailFatTree(Parameters):
    """Parameters of ``rail_fat_tree``.

    ``uplink_cables`` and ``core_cables`` count the cables of one leaf-spine and
    one spine-core pair; each cable runs at ``nic_gbs``.
    """

    nodes: Size
    nvlink: ScaleUp
    pcie_gbs: Positive
    nic_gbs: Positive
    link: EdgeKind = "ib"
    su_nodes: Size
    ports: Ports = 64
    tiers: int = Field(default=2, ge=2, le=3)
    spines: Size
    uplink_cables: Ports = 1
    pod_su: Size | None = None
    cores: Size | None = None
    core_cables: Ports = 1


def make(parameters: RailFatTree) -> Json:
    """Return hosts, leaves, spines and, with three tiers, cores."""
    _check(parameters)
    units = parameters.nodes // parameters.su_nodes
    leaves = [f"leaf{number}" for number in range(units * parameters.gpus_per_node)]
    parts = [
        _host(host, leaves, number // parameters.su_nodes, parameters)
        for number, host in enumerate(numbered("n", parameters.nodes))
    ]
    parts.append(
        {"nodes": [_leaf(i, n, parameters) for i, n in enumerate(leaves)], "edges": []}
    )
    pod_leaves = (parameters.pod_su or units) * parameters.gpus_per_node
    pods = [leaves[at : at + pod_leaves] for at in range(0, len(leaves), pod_leaves)]
    parts += [_spines(number, pod, parameters) for number, pod in enumerate(pods)]
    if parameters.tiers == 3:
        parts.append(_cores(len(pods), parameters))
    return joined(parts)


def _host(host: str, leaves: list[str], unit: int, parameters: RailFatTree) -> Json:
    made = switched_host(host, parameters, parameters.nvlink)
    rails = parameters.gpus_per_node
    for rail in range(rails):
        nic = f"{host}/nic{rail}"
        leaf = leaves[unit * rails + rail]
        made["nodes"].append({"id": nic, "kind": "nic", "host": host, "rail": rail})
        made["edges"].append(
            duplex(
                f"{host}/gpu{rail}", nic, "pcie", parameters.pcie_gbs, affinity="PIX"
            )
        )
        made["edges"].append(duplex(nic, leaf, parameters.link, parameters.nic_gbs))
    return made


def _leaf(number: int, name: str, parameters: RailFatTree) -> Json:
    rail = number % parameters.gpus_per_node
    return {
        "id": name,
        "kind": "switch",
        "tier": 0,
        "rail": rail,
        "ports": parameters.ports,
    }


def _bundle(source: str, target: str, cables: int, parameters: RailFatTree) -> Json:
    total = parameters.nic_gbs * cables
    return duplex(source, target, parameters.link, total, cables=cables)


def _spines(pod: int, leaves: list[str], parameters: RailFatTree) -> Json:
    first = pod * parameters.spines
    names = [f"spine{first + index}" for index in range(parameters.spines)]
    nodes = [
        {"id": name, "kind": "switch", "tier": 1, "ports": parameters.ports}
        for name in names
    ]
    edges = [
        _bundle(leaf, spine, parameters.uplink_cables, parameters)
        for leaf in leaves
        for spine in names
    ]
    return {"nodes": nodes, "edges": edges}


def _cores(pods: int, parameters: RailFatTree) -> Json:
    count = parameters.cores or 0
    each = count // parameters.spines
    nodes = [
        {"id": f"core{core}", "kind": "switch", "tier": 2, "ports": parameters.ports}
        for core in range(count)
    ]
    edges = [
        _bundle(
            f"spine{pod * parameters.spines + index}",
            f"core{index * each + core}",
            parameters.core_cables,
            parameters,
        )
        for pod in range(pods)
        for index in range(parameters.spines)
        for core in range(each)
    ]
    return {"nodes": nodes, "edges": edges}


def _check(parameters: RailFatTree) -> None:
    """Refuse trees that do not divide evenly or have too few switch ports."""
    check_size(parameters.nodes, parameters.gpus_per_node)
    if parameters.nodes % parameters.su_nodes:
        raise WrongParameter(
            "nodes",
            f"must be a multiple of su_nodes ({parameters.su_nodes})",
            "fill the SUs",
        )
    units, pods = parameters.nodes // parameters.su_nodes, 1
    up = 0
    if parameters.tiers == 3:
        pods = _check_cores(parameters, units)
        up = (parameters.cores or 0) // parameters.spines * parameters.core_cables
    elif parameters.pod_su or parameters.cores:
        raise WrongParameter(
            "tiers", "must be 3 where pods and cores are given", "set it"
        )
    leaf = parameters.su_nodes + parameters.spines * parameters.uplink_cables
    rails = parameters.gpus_per_node
    spine = units // pods * rails * parameters.uplink_cables + up
    for field, used, kind in (("su_nodes", leaf, "leaf"), ("spines", spine, "spine")):
        if used > parameters.ports:
            raise WrongParameter(
                field,
                f"needs {used} ports of a {kind}, which has {parameters.ports}",
                "use fewer hosts or cables, or larger switches",
            )


def _check_cores(parameters: RailFatTree, units: int) -> int:
    if parameters.pod_su is None or units % parameters.pod_su:
        raise WrongParameter(
            "pod_su", f"must divide the {units} SUs", "give SUs per pod"
        )
    if parameters.cores is None or parameters.cores % parameters.spines:
        raise WrongParameter(
            "cores", f"must be a multiple of spines ({parameters.spines})", "set it"
        )
    pods = units // parameters.pod_su
    if pods * parameters.core_cables > parameters.ports:
        raise WrongParameter(
            "core_cables",
            f"needs {pods * parameters.core_cables} ports of a core switch",
            "use fewer cables or pods",
        )
    return pods


GENERATORS.register("rail_fat_tree")(Generator(parameters=RailFatTree, make=make))
