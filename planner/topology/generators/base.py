"""What generators share: the registry, the parameters and the parts of a host."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from planner.errors import TopologyError
from planner.registry import Registry
from planner.topology.graph import MAX_GPUS
from planner.topology.models import Count, EdgeKind, Name, Positive, Strict
from planner.topology.reading import pointer_error

Json = dict[str, Any]


Size = Annotated[Count, Field(le=MAX_GPUS)]
"""A number of things; the bound keeps a small file from filling the memory."""
Ports = Annotated[Count, Field(le=1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """A kind of cluster: its parameters and how they become nodes and edges."""

    parameters: type["Parameters"]
    make: Callable[[Any], Json]


class Parameters(Strict):
    """Parameters that every kind has."""

    kind: Name
    gpus_per_node: Size = 8
    profile: Name


class WrongParameter(Exception):
    """Parameters that do not fit each other: field, rule, way out."""

    def __init__(self, field: str, rule: str, fix: str) -> None:
        self.field, self.rule, self.fix = field, rule, fix
        super().__init__(rule)


GENERATORS: Registry[Generator] = Registry("generator")


def expand(parameters: Mapping[str, Any], *, where: str) -> Json:
    """Return ``nodes`` and ``edges`` of a generator file.

    Raises
    ------
    TopologyError
        Unknown kind, a parameter missing, unknown or out of range.
    """
    kind = parameters.get("kind")
    if kind not in GENERATORS.names():
        raise TopologyError(
            "is no kind of generator",
            where=f"{where} /generator/kind",
            value=kind,
            fix=f"choose from {', '.join(GENERATORS.names())}",
        )
    generator = GENERATORS.get(str(kind))
    try:
        return generator.make(generator.parameters.model_validate(dict(parameters)))
    except ValidationError as error:
        raise pointer_error(error, where, "/generator") from None
    except WrongParameter as error:
        raise TopologyError(
            error.rule,
            where=f"{where} /generator/{error.field}",
            value=parameters.get(error.field),
            fix=error.fix,
        ) from None


class ScaleUp(Strict):
    """NVLink of a host: every GPU to one NVSwitch node."""

    bandwidth_gbs: Positive
    cables: Count = 1
    planes: Count = 1

    kind: ClassVar[EdgeKind] = "nvlink"


def check_size(nodes: int, gpus_per_node: int) -> None:
    """Refuse clusters that no plan of this version can be made for."""
    if nodes * gpus_per_node > MAX_GPUS:
        raise WrongParameter(
            "nodes", f"make more than {MAX_GPUS} GPUs", "describe a part of the cluster"
        )


def duplex(source: str, target: str, kind: str, gbs: object, **more: object) -> Json:
    """Return one full-duplex edge."""
    edge = {"source": source, "target": target, "kind": kind, "bandwidth_gbs": gbs}
    return {**edge, **more, "duplex": "full"}


def numbered(prefix: str, count: int) -> list[str]:
    """Return ``count`` names that sort by number: n00, n01, …"""
    width = len(str(count - 1))
    return [f"{prefix}{number:0{width}d}" for number in range(count)]


def gpus_of(host: str, parameters: Parameters) -> list[Json]:
    """Return the GPUs of a host."""
    return [
        {
            "id": f"{host}/gpu{index}",
            "kind": "gpu",
            "host": host,
            "index": index,
            "profile": parameters.profile,
        }
        for index in range(parameters.gpus_per_node)
    ]


def switched_host(host: str, parameters: Parameters, scale_up: ScaleUp) -> Json:
    """Return the GPUs of a host, their NVSwitch and the NVLink between them."""
    gpus = gpus_of(host, parameters)
    switch = f"{host}/nvs"
    nodes = [
        *gpus,
        {"id": switch, "kind": "nvswitch", "host": host, "planes": scale_up.planes},
    ]
    edges = [
        duplex(
            gpu["id"],
            switch,
            scale_up.kind,
            scale_up.bandwidth_gbs,
            cables=scale_up.cables,
        )
        for gpu in gpus
    ]
    return {"nodes": nodes, "edges": edges}


def joined(parts: list[Json]) -> Json:
    """Return the nodes and edges of several parts as one."""
    return {
        "nodes": [node for part in parts for node in part["nodes"]],
        "edges": [edge for part in parts for edge in part["edges"]],
    }
