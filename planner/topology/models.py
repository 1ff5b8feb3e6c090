"""The border of ``moe-topology/1``: pydantic models of a cluster file.

Numbers become exact rationals of the decimals in the file: 0.1 is 1/10. Field
names carry their unit. A *generator file* names a kind and its parameters in
place of nodes and edges.
"""

import math
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

NodeKind = Literal["gpu", "nvswitch", "pcie_switch", "cpu", "nic", "switch"]
EdgeKind = Literal[
    "nvlink", "xgmi", "c2c", "pcie", "upi", "ib", "roce", "efa", "ici", "generic"
]
State = Literal["up", "degraded", "down"]
Affinity = Literal["PIX", "PXB", "PHB", "NODE", "SYS"]


def exact(value: object) -> Fraction:
    """Return the exact rational of a JSON number; its decimals are the value."""
    if isinstance(value, bool) or not isinstance(
        value, int | float | Decimal | Fraction
    ):
        raise PydanticCustomError("number", "must be a number")
    if isinstance(value, Fraction):
        return value
    # 1e999 and 1e-999 are legal JSON; neither is a double, so neither is a size.
    if not math.isfinite(_double(value)):
        raise PydanticCustomError("finite", "must be finite")
    if value != 0 and _double(value) == 0:
        raise PydanticCustomError("tiny", "must not be below the smallest double")
    return Fraction(str(value))


def _double(value: int | float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _positive(value: object) -> Fraction:
    number = exact(value)
    if number <= 0:
        raise PydanticCustomError("positive", "must be finite and > 0")
    return number


def _not_negative(value: object) -> Fraction:
    number = exact(value)
    if number < 0:
        raise PydanticCustomError("not_negative", "must be finite and >= 0")
    return number


def _share(value: object) -> Fraction:
    number = _positive(value)
    if number > 1:
        raise PydanticCustomError("share", "must be > 0 and <= 1")
    return number


def _whole(value: object) -> int:
    number = exact(value)
    if number.denominator != 1 or abs(number) >= 2**63:
        raise PydanticCustomError("whole", "must be a whole number below 2^63")
    return int(number)


def _plain(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


_NUMBER = PlainSerializer(_plain, return_type=float, when_used="json")
Positive = Annotated[
    Fraction,
    PlainValidator(_positive),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    _NUMBER,
]
NotNegative = Annotated[
    Fraction,
    PlainValidator(_not_negative),
    WithJsonSchema({"type": "number", "minimum": 0}),
    _NUMBER,
]
Share = Annotated[
    Fraction,
    PlainValidator(_share),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
    _NUMBER,
]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
CountOrZero = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    """A record that refuses unknown keys and silent conversions."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


class Profile(Strict):
    """What a kind of GPU has; ``*_efficiency`` are shares reached in practice."""

    memory_bytes: Count | None = None
    memory_bandwidth_gbs: Positive | None = None
    compute_tflops: dict[str, Positive] = Field(default_factory=dict)
    compute_efficiency: Share | None = None
    memory_bandwidth_efficiency: Share | None = None
    description: str | None = None


class Node(Strict):
    """A device or a switch."""

    id: Name
    kind: NodeKind
    host: Name | None = None
    index: CountOrZero | None = None
    profile: Name | None = None
    memory_bytes: Count | None = None
    reserved_bytes: CountOrZero = 0
    numa: Annotated[int, BeforeValidator(_whole), Field(ge=-1)] | None = None
    nvlink_domain: Name | None = None
    failure_domains: dict[str, str] = Field(default_factory=dict)
    state: State = "up"
    planes: Count | None = None
    rail: CountOrZero | None = None
    plane: CountOrZero | None = None
    role: Literal["compute", "storage", "management"] = "compute"
    guid: str | None = None
    tier: CountOrZero | None = None
    ports: Count | None = None
    fabric: Name | None = None


class Edge(Strict):
    """A bundle of cables; ``duplex`` makes two directed edges of it."""

    source: Name
    target: Name
    kind: EdgeKind | None = None
    bandwidth_gbs: Positive
    latency_us: NotNegative | None = None
    cables: Count = 1
    duplex: Literal["full", "half"] | None = None
    affinity: Affinity | None = None
    efficiency: Share | None = None
    capacity_group: Name | None = None
    state: State = "up"


class Routing(Strict):
    """What the file asks for; the command line comes first (rule 7)."""

    policy: str | None = None
    endpoint: Literal["local_nic", "pxn", "dest_forward"] | None = None
    tables: dict[Name, dict[Name, Name]] = Field(default_factory=dict)


class Provenance(Strict):
    """Where the numbers of a field come from."""

    field: str
    source: str
    basis: Literal["documented", "measured", "derived", "assumed"]
    note: str | None = None


class CapacityGroup(Strict):
    """A limit shared by several edges; no bandwidth: that of the smallest."""

    bandwidth_gbs: Positive | None = None


class Host(Strict):
    """What is known of a host beside its devices."""

    description: str | None = None
    failure_domains: dict[str, str] = Field(default_factory=dict)


class Graph(Strict):
    """What holds for the whole cluster."""

    name: Name | None = None
    description: str | None = None
    bandwidth_basis: Literal["nominal", "effective"] = "nominal"
    efficiency: dict[EdgeKind, Share] = Field(default_factory=dict)
    routing: Routing = Field(default_factory=Routing)
    profiles: dict[str, Profile] = Field(default_factory=dict)
    capacity_groups: dict[str, CapacityGroup] = Field(default_factory=dict)
    hosts: dict[str, Host] = Field(default_factory=dict)
    provenance: list[Provenance] = Field(default_factory=list)


class Workload(Strict):
    """Model and trace to plan for when the command line names none (design §8)."""

    model: str | None = None
    trace: str | None = None


SchemaName = Annotated[str, Field(pattern=r"^moe-topology/1(\.[0-9]+)?$")]


class TopologyFile(Strict):
    """networkx node-link JSON; ``links`` is the older name of ``edges``."""

    model_config = ConfigDict(title="moe-topology/1")

    schema_name: SchemaName = Field(alias="schema")
    directed: Literal[True] = True
    multigraph: Literal[False] = False
    graph: Graph = Field(default_factory=Graph)
    nodes: list[Node] = Field(min_length=1)
    edges: list[Edge] | None = None
    links: list[Edge] | None = None
    workload: Workload | None = None


class GeneratorFile(Strict):
    """A cluster by its kind and parameters; ``graph`` adds to what is made."""

    model_config = ConfigDict(title="moe-topology/1 generator")

    schema_name: SchemaName = Field(alias="schema")
    generator: dict[str, object]
    graph: dict[str, object] = Field(default_factory=dict)
    workload: Workload | None = None
