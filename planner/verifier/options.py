"""The recorded options that counting again depends on."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.errors import ManifestError
from planner.layout import ParallelLayout
from planner.manifest import Manifest
from planner.workload.model_spec import MoEModelSpec, Precision

Size = Annotated[int, Field(ge=0)]


class RecordedOptions(BaseModel):
    """Options of ``inputs.options.values`` that decide a count; others are kept."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    holdout: str
    phase: str | None = None
    batch_tokens: Annotated[int, Field(ge=1)]
    kv_tokens: Size | None = None
    mem_fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    precision: Precision | None = None
    message_bytes: tuple[Size, Size] | None = None
    link_classes: tuple[str, ...] | None = None
    routing_groups: Literal["free", "nest"] = "free"
    policy: str | None = None
    constraints: dict[str, Any] | None = None
    previous: dict[str, Any] | None = None
    max_moves: Size | None = None

    @property
    def free(self) -> bool:
        """Whether layers may have different numbers of slots."""
        return self.policy == "free"

    @property
    def single(self) -> bool:
        """Whether a GPU holds one expert of all layers together."""
        return self.policy == "one_expert_per_gpu_total"


def recorded_options(manifest: Manifest) -> RecordedOptions:
    """Return the options in force.

    Raises
    ------
    ManifestError
        If one is missing or can be no value of that option.
    """
    try:
        return RecordedOptions.model_validate(manifest.inputs.options.values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise ManifestError(
            first["msg"],
            where=f"/inputs/options/values{pointer}",
            value=None if first["type"] == "missing" else first["input"],
            fix="plan again",
        ) from error


def nested_groups(
    options: RecordedOptions, model: MoEModelSpec, layout: ParallelLayout
) -> int:
    """Return how many routing groups must stay in one domain each; 0 for none.

    The model's, or one for every domain of an EP set if it has none.
    """
    if options.routing_groups == "free":
        return 0
    if model.routing_groups > 1:
        return model.routing_groups
    return len(set(layout.domain_G[: layout.ep].tolist()))
