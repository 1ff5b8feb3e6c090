"""The request of ``POST /plan`` and the answers that are not a manifest.

Names stand for bundled things only and are looked up in their lists: the service
takes no path and no URL. What is given inline is checked here for its outer shape
and in full by the planner's own readers.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    StringConstraints,
    Tag,
    model_validator,
)

from planner import bundled
from planner.options import SolveOptions

MAX_LAYERS, MAX_EXPERTS = 1024, 4096
MAX_COUNT = 2**53
LARGEST_SEED = 2**31 - 1


class Strict(BaseModel):
    """No unknown keys, no conversions, no NaN and no infinity."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, frozen=True
    )


def _bundled_topology(name: str) -> str:
    return _known(name, bundled.topology_names(), "topology")


def _bundled_trace(name: str) -> str:
    return _known(name, sorted(bundled.traces()), "trace")


def _known(name: str, names: list[str], family: str) -> str:
    """Return ``name`` if it is one of ``names``."""
    if name not in names:
        raise ValueError(f"no bundled {family} has this name; use {', '.join(names)}")
    return name


def _no_files(topology: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse the one field of a topology file that names other files."""
    graph = topology.get("graph")
    if "workload" in topology or (isinstance(graph, dict) and "workload" in graph):
        raise ValueError(
            "a topology given inline must not carry 'workload', which names files; "
            "use the fields 'model' and 'trace' of the request"
        )
    return topology


def _as_text(value: object) -> object:
    """Let a number stand for its text, as on a command line."""
    return str(value) if type(value) in (int, float) else value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Cap = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{1,6}(\.[0-9]{1,12})?x?$"),
    BeforeValidator(_as_text),
]
LinkClass = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:>._-]{1,128}$")]
Inline = dict[str, JsonValue]


def _branch(value: object) -> str:
    """Tell a name from a document; what is neither fails as a name."""
    return "inline" if isinstance(value, dict | BaseModel) else "name"


Topology = Annotated[
    Annotated[Name, AfterValidator(_bundled_topology), Tag("name")]
    | Annotated[Inline, AfterValidator(_no_files), Tag("inline")],
    Discriminator(_branch),
]
Model = Annotated[
    Annotated[Name, Tag("name")] | Annotated[Inline, Tag("inline")],
    Discriminator(_branch),
]


class Counts(Strict):
    """Tokens per MoE layer and expert, the same for every DP rank (rules.md B)."""

    workload: Name = "inline"
    phase: Literal["prefill", "decode"] = "decode"
    layers: list[Annotated[int, Field(ge=0, lt=MAX_LAYERS)]] = Field(
        min_length=1,
        max_length=MAX_LAYERS,
        description="number in the model of each row of `tokens`, ascending",
    )
    tokens: list[
        Annotated[
            list[Annotated[int, Field(ge=0, le=MAX_COUNT)]],
            Field(min_length=1, max_length=MAX_EXPERTS),
        ]
    ] = Field(description="one row per layer, one count per logical expert")
    top_k: int = Field(ge=1, le=MAX_EXPERTS, description="experts per token")

    @model_validator(mode="after")
    def _rows_match(self) -> Self:
        if any(b <= a for a, b in zip(self.layers, self.layers[1:], strict=False)):
            raise ValueError("layers must be ascending and all different")
        if len(self.tokens) != len(self.layers):
            raise ValueError(
                f"{len(self.tokens)} rows of tokens for {len(self.layers)} layers"
            )
        if len({len(row) for row in self.tokens}) > 1:
            raise ValueError("every row of tokens must have the same length")
        if self.top_k > len(self.tokens[0]):
            raise ValueError("top_k is larger than the number of experts")
        return self


class InlineTrace(Strict):
    """A workload given in the request."""

    counts: Counts


Trace = Annotated[
    Annotated[Name, AfterValidator(_bundled_trace), Tag("name")]
    | Annotated[InlineTrace, Tag("inline")],
    Discriminator(_branch),
]


class WeightedTrace(Strict):
    """One of several workloads that a plan serves (rule 25)."""

    trace: Trace
    weight: float = Field(default=1.0, gt=0, le=1e9, description="share of the mean")
    traffic: Literal["copies", "dedup_gpu", "dedup_domain", "direct"] | None = None
    phase: Literal["prefill", "decode"] | None = None


class PlanOptions(Strict):
    """The options of ``planner solve`` under the same names (design §8)."""

    phase: Literal["prefill", "decode"] = "prefill"
    traffic: Literal["copies", "dedup_gpu", "dedup_domain", "direct"] | None = None
    selection: Literal["nearest", "even", "weighted"] = "nearest"
    objective: Literal["link_time", "link_tokens", "gpu_tokens"] = "link_time"
    layers: Literal["sequential", "pipelined", "worst_layer"] = "sequential"
    combine: Literal["mean", "worst"] = "mean"
    link_classes: list[LinkClass] | None = Field(
        default=None, min_length=1, max_length=64
    )
    homes: Literal["trace", "by_token", "round_robin", "balanced", "by_tag"] | None = (
        None
    )
    policy: Literal[
        "uniform", "free", "one_expert_per_gpu", "one_expert_per_gpu_total"
    ] = "uniform"
    redundant: Annotated[
        str,
        StringConstraints(pattern=r"^(auto|[0-9]{1,5})$"),
        BeforeValidator(_as_text),
    ] = "auto"
    layout: Annotated[
        str, StringConstraints(pattern=r"^(auto|[a-z]+=[0-9]+(,[a-z]+=[0-9]+){0,5})$")
    ] = "auto"
    groups: Literal["auto", "placed"] = "auto"
    routing_groups: Literal["free", "nest"] = "free"
    imbalance_cap: Cap | None = None
    domain_imbalance_cap: Cap | None = None
    kv_tokens: int | None = Field(default=None, ge=0, le=2**40)
    mem_fraction: float | None = Field(default=None, gt=0, le=1)
    batch_tokens: int = Field(default=4096, ge=1, le=2**24)
    precision: Literal["fp32", "bf16", "fp16", "fp8"] | None = None
    endpoint: Literal["local_nic", "pxn", "dest_forward"] | None = None
    routing: str | None = Field(
        default=None,
        max_length=64,
        description="ecmp_fractional, dmodk, ecmp_hash(SEED[,FLOWS]) or explicit.",
    )
    message_bytes: list[Annotated[int, Field(ge=0, le=2**32)]] | None = Field(
        default=None, min_length=2, max_length=2, description="dispatch, combine"
    )
    strategy: Word = "auto"
    time_limit: float | None = Field(
        default=None, gt=0, description="seconds of search; the service caps it"
    )
    gap: float = Field(default=0.0, ge=0, lt=1)
    threads: int | None = Field(default=None, ge=1, le=64)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    deterministic: bool = Field(
        default=False,
        description="count work instead of seconds: same request, same manifest",
    )
    holdout: Annotated[
        str,
        StringConstraints(pattern=r"^[01](\.[0-9]{1,9})?(:[A-Za-z0-9._-]{1,64})?$"),
        BeforeValidator(_as_text),
    ] = "0.5"
    plan_for: Literal["seen", "unseen"] = "seen"
    constraints: Inline | None = Field(
        default=None, description="pins, forbidden and apart (docs/constraints.md)"
    )
    previous: Inline | None = Field(
        default=None, description="`gpus` and `layers` of an earlier manifest"
    )
    max_moves: int | None = Field(
        default=None, ge=0, le=2**40, description="most experts that move"
    )


class PlanRequest(Strict):
    """A cluster, a model, a workload and the options of the solve."""

    topology: Topology = Field(
        description="name of a bundled topology, or a moe-topology/1 document"
    )
    model: Model | None = Field(
        default=None, description="name of a model preset, or a model document"
    )
    trace: Trace | None = Field(
        default=None, description="name of a bundled trace, or counts"
    )
    workloads: list[WeightedTrace] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="several traces instead of `trace`, judged by `options.combine`",
    )
    options: PlanOptions = PlanOptions()

    @model_validator(mode="after")
    def _one_kind_of_traffic(self) -> Self:
        if self.trace is not None and self.workloads is not None:
            raise ValueError("give trace or workloads, not both")
        return self

    def solve_options(self) -> SolveOptions:
        """Return the options as the planner takes them.

        Where the request gives counts and no phase, the counts' own is meant.
        """
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.options
            if name in self.options.model_fields_set and value is not None
        }
        if isinstance(self.trace, InlineTrace):
            given.setdefault("phase", self.trace.counts.phase)
        return SolveOptions(**given)


class Example(Strict):
    """A request body that works."""

    name: str
    description: str
    request: dict[str, Any]


class Examples(Strict):
    """Request bodies for ``POST /plan``."""

    examples: list[Example]


class Health(Strict):
    """That the service is up, and how busy."""

    status: Literal["ok"]
    version: str
    solving: int
    capacity: int
