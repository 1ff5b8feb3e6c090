"""The recorded options that counting again depends on."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.errors import ManifestError
from planner.manifest import Manifest
from planner.workload.model_spec import Precision

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
    policy: str | None = None

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
