"""The parts of a manifest, as frozen records that read strictly.

Unknown keys, wrong types, NaN and infinity are refused; the JSON Schema is
published from these models. Everything per GPU is in the order of ``gpus``. Text
fields named ``*_exact`` hold an exact rational as ``"numerator/denominator"``; the
number beside one is the nearest double.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hex")]
ExactText = Annotated[str, Field(pattern=r"^-?[0-9]+/[1-9][0-9]*$")]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0)]
Mode = Literal["sequential", "pipelined", "worst_layer"]
Name = Literal["link_time", "link_tokens", "gpu_tokens"]
Leg = Literal["dispatch", "combine"]


class Record(BaseModel):
    """Base of every part: frozen, strict, closed."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
    )


class InputFile(Record):
    """A topology or model: a file, a name that ships with the planner, or inline.

    ``path`` is relative to the manifest. Neither ``path`` nor ``content`` means
    the bundled data called ``name``. ``sha256`` is of the file's bytes; of the
    canonical JSON where there is no file (rule 31).
    """

    name: str
    path: str | None = None
    sha256: Digest
    content: dict[str, Any] | None = None


class TraceInput(InputFile):
    """A trace or counts table, and how it is used (rule 25)."""

    workload: str | None = None
    weight: ExactText = "1/1"
    traffic: str
    phase: str | None = None


class Options(Record):
    """Every option value in force, and its digest (rule 31)."""

    values: dict[str, Any]
    sha256: Digest


class Inputs(Record):
    """What the plan was made from."""

    topology: InputFile
    model: InputFile
    traces: tuple[TraceInput, ...] = Field(min_length=1)
    options: Options


class Layer(Record):
    """One MoE layer: the experts in the slots of every GPU of one EP set.

    ``split`` holds integer weights per copy by expert, then by DP rank or ``*``
    (rule 19); it is absent where all weights are equal.
    """

    layer: Count
    slots: tuple[tuple[Count, ...], ...] = Field(min_length=1)
    split: dict[str, dict[str, tuple[int, ...]]] | None = None

    @model_serializer(mode="wrap")
    def _without_empty_split(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if data.get("split") is None:
            data.pop("split", None)
        return data


class AttentionGroup(Record):
    """The GPUs (ids) of one DP rank."""

    dp_rank: Count
    gpus: tuple[str, ...] = Field(min_length=1)


class Groups(Record):
    """Attention groups, GPUs per EP set, and how many sets there are."""

    attention: tuple[AttentionGroup, ...] = Field(min_length=1)
    ep: Positive
    expert_tp: Positive = 1
    pp: Positive = 1
    replicas: Positive = 1


class ModeValues(Record):
    """One objective under the three layer modes, and exactly."""

    sequential: Amount
    pipelined: Amount
    worst_layer: Amount
    sequential_exact: ExactText
    pipelined_exact: ExactText
    worst_layer_exact: ExactText


class ObjectiveReport(Record):
    """The optimized value and all nine of rule 23.

    ``scope`` lists the link classes that count for ``link_tokens``.
    """

    name: Name
    layers: Mode
    scope: tuple[str, ...]
    value: Amount
    value_exact: ExactText
    unit: Literal["s", "tokens", "pairs", "s/token", "tokens/token", "pairs/token"]
    link_time: ModeValues
    link_tokens: ModeValues
    gpu_tokens: ModeValues


class LayerBound(Record):
    """The lower bound of one layer."""

    layer: Count
    value: Amount
    method: str
    of: str
    branching: bool = False


class BoundReport(Record):
    """A lower bound of the objective, its method and the problem it bounds.

    ``branching`` says that the proof needed branching (``solver_claimed``).
    ``certificate`` is what a verifier needs to prove a bound again: one ``kind`` for
    every layer, or ``{"kind": "layers", "layers": [one or null per layer]}``
    (``docs/certificates.md``); ``certified_exact`` is the bound it proves, which may
    be below ``value``.
    """

    value: Amount
    method: str
    of: str
    branching: bool = False
    layers: tuple[LayerBound, ...] = ()
    certificate: dict[str, Any] | None = None
    certified_exact: ExactText | None = None


class Termination(Record):
    """Why the search stopped, and the limit that was hit if any."""

    reason: Literal["optimal", "gap", "limit", "complete", "interrupted"]
    limit: str | None = None


class BusiestLink(Record):
    """The busiest link of one class in one leg of one layer."""

    leg: Leg
    link_class: str
    link: str
    tokens: Amount
    tokens_exact: ExactText
    bytes: Amount
    seconds: Amount
    seconds_exact: ExactText


class LayerPrediction(Record):
    """Loads of one layer; the digests cover every GPU pair and every link.

    ``transfers`` and ``inter_domain_transfers`` count dispatch transfers;
    ``combine_sha256`` is there where combine does not mirror them (``direct``).
    """

    layer: Count
    transfers_exact: ExactText
    inter_domain_transfers_exact: ExactText
    transfers_sha256: Digest
    combine_sha256: Digest | None = None
    links_sha256: Digest
    imbalance: Amount
    domain_imbalance: Amount
    busiest: tuple[BusiestLink, ...]

    @model_serializer(mode="wrap")
    def _without_mirrored_combine(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if data.get("combine_sha256") is None:
            data.pop("combine_sha256", None)
        return data


class GpuPrediction(Record):
    """What one GPU computes, needs and has; pairs are over all layers."""

    gpu: str
    pairs: Amount
    pairs_exact: ExactText
    memory_bytes: Count
    memory_limit_bytes: Count


class MessageBytes(Record):
    """Bytes of one transfer in each leg (rule 22)."""

    dispatch: Count
    combine: Count


class PartPrediction(Record):
    """Everything counted on one part of the workload.

    ``q`` is the denominator of the route shares, in decimals (it may be long).
    """

    tokens_exact: ExactText
    q: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")]
    inter_domain_bytes_exact: ExactText
    home_tokens_max_over_mean: Amount
    layers: tuple[LayerPrediction, ...] = Field(min_length=1)


class Prediction(PartPrediction):
    """The planning part, with what one message and one GPU weigh."""

    message_bytes: MessageBytes
    gpus: tuple[GpuPrediction, ...] = Field(min_length=1)


class ImbalanceReport(Record):
    """Max/mean of pairs per GPU and per domain (rule 26)."""

    mean: Amount
    worst: Amount
    domain_mean: Amount
    domain_worst: Amount


class Caps(Record):
    """Imbalance caps in force on the planning part; null means none.

    A cap is a max/mean. Where ``gpu_lowest`` (``domain_lowest``) is there, it is
    multiplied by what that holds by workload and layer: the lowest max/mean of the
    baselines.
    """

    gpu: Amount | None = None
    domain: Amount | None = None
    gpu_lowest: dict[str, tuple[ExactText, ...]] | None = None
    domain_lowest: dict[str, tuple[ExactText, ...]] | None = None

    @model_serializer(mode="wrap")
    def _without_baselines(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        for name in ("gpu_lowest", "domain_lowest"):
            if data.get(name) is None:
                data.pop(name, None)
        return data


class Baseline(Record):
    """An engine's plan on the same part, or why there is none."""

    objective: ObjectiveReport | None = None
    imbalance: ImbalanceReport | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()


class Holdout(Record):
    """The plan on sequences it has not seen."""

    tokens: Amount
    objective: ObjectiveReport
    imbalance: ImbalanceReport
    baselines: dict[str, Baseline]
    prediction: PartPrediction


class WorkloadPart(Record):
    """One workload's own figures on one part: not per token, not combined."""

    tokens: Amount
    objective: Amount
    imbalance: ImbalanceReport
    prediction: PartPrediction


class ContextReport(Record):
    """What traffic ``direct`` costs beside its transfers.

    All ``groups`` attention groups of an EP set hold every token's keys and values
    (``token_bytes`` per GPU): ``memory_bytes`` more on every GPU, by which the fullest
    lacks ``missing_bytes``, and ``transfer_bytes`` sent for the planned tokens.
    """

    groups: Positive
    token_bytes: Count
    memory_bytes: Count
    missing_bytes: Count
    transfer_bytes: Count


class Workload(Record):
    """One workload of the objective (rule 25).

    ``objective`` is its own value on the planning part, before it is divided by its
    tokens. ``planning`` and ``holdout`` are there for every workload but the first,
    whose figures are the manifest's own ``prediction`` and ``holdout.prediction``.
    ``context`` is there under traffic ``direct``.
    """

    traffic: str
    phase: str | None
    weight: ExactText
    tokens: Amount
    objective: Amount
    endpoint: str | None = None
    planning: WorkloadPart | None = None
    holdout: WorkloadPart | None = None
    context: ContextReport | None = None

    @model_serializer(mode="wrap")
    def _without_empty_context(
        self, handler: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        data: dict[str, Any] = handler(self)
        if data.get("context") is None:
            data.pop("context", None)
        return data


class HistoryEntry(Record):
    """One step of the search."""

    seconds: Amount
    objective: Amount | None
    bound: Amount | None


class Provenance(Record):
    """Who made the plan, how, and how long it took.

    ``clock`` says what the seconds here count: ``wall``, or ``work`` at fixed rates
    (``--deterministic``), which is the same in every run.
    """

    versions: dict[str, str]
    seed: int
    strategy: str
    layer_strategies: tuple[str, ...] = ()
    clock: Literal["wall", "work"] = "wall"
    seconds: Amount
    history: tuple[HistoryEntry, ...] = ()
    notes: tuple[str, ...] = ()
