"""The manifest ``moe-plan/1``: one JSON file that holds a plan and its evidence.

The models here and in ``schema`` are the only definition of the format; the JSON
Schema of ``docs/moe-plan.schema.json`` is made from them.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from planner.arrays import IdArray
from planner.manifest.schema import (
    Baseline,
    BoundReport,
    Caps,
    Groups,
    Holdout,
    ImbalanceReport,
    Inputs,
    Layer,
    ObjectiveReport,
    Prediction,
    Provenance,
    Record,
    Termination,
    Workload,
)

SCHEMA: Literal["moe-plan/1"] = "moe-plan/1"


class Manifest(Record):
    """One plan with its inputs, prediction and evidence."""

    schema_name: Literal["moe-plan/1"] = Field(default=SCHEMA, alias="schema")
    inputs: Inputs
    gpus: tuple[str, ...] = Field(min_length=1)
    layers: tuple[Layer, ...] = Field(min_length=1)
    groups: Groups
    traffic: Literal["copies", "dedup_gpu", "dedup_domain", "direct"]
    selection: Literal["nearest", "even", "weighted"]
    endpoint: Literal["local_nic", "pxn", "dest_forward"]
    routing: str
    homes: str
    combine: Literal["mean", "worst"] = "mean"
    objective: ObjectiveReport
    bound: BoundReport | None = None
    status: Literal[
        "proven_optimal", "solver_claimed", "feasible", "infeasible", "unknown"
    ]
    gap: float | None = None
    termination: Termination
    prediction: Prediction
    imbalance: ImbalanceReport
    caps: Caps = Caps()
    baselines: dict[str, Baseline]
    holdout: Holdout | None = None
    holdout_reason: str | None = None
    workloads: dict[str, Workload]
    provenance: Provenance

    @model_validator(mode="after")
    def _parts_belong_together(self) -> "Manifest":
        """What no verifier could make sense of is refused while reading."""
        numbers = [layer.layer for layer in self.layers]
        if numbers != sorted(set(numbers)):
            raise ValueError("layers: numbers must ascend without repetition")
        predicted = [layer.layer for layer in self.prediction.layers]
        if predicted != numbers:
            raise ValueError("prediction.layers: must be the layers of the plan")
        if len(set(self.gpus)) != len(self.gpus):
            raise ValueError("gpus: ids must differ")
        if len(self.prediction.gpus) != len(self.gpus):
            raise ValueError("prediction.gpus: one entry per GPU is needed")
        for layer in self.layers:
            _check_split(layer)
        if self.holdout is None and self.holdout_reason is None:
            raise ValueError("holdout_reason: say why there is no held-out part")
        return self


def _check_split(layer: Layer) -> None:
    """Weights of rule 19: one per copy, none negative, a sum above 0."""
    copies: dict[str, int] = {}
    for slots in layer.slots:
        for expert in slots:
            copies[str(expert)] = copies.get(str(expert), 0) + 1
    for split_expert, by_rank in (layer.split or {}).items():
        for dp_rank, weights in by_rank.items():
            where = f"layers: layer {layer.layer} split {split_expert} {dp_rank}"
            if dp_rank != "*" and not dp_rank.isdecimal():
                raise ValueError(f"{where}: the key must be a DP rank or *")
            if len(weights) != copies.get(split_expert, 0):
                raise ValueError(f"{where}: one weight per copy is needed")
            if min(weights) < 0 or sum(weights) == 0:
                raise ValueError(f"{where}: weights must be >= 0 with a sum > 0")


def json_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a manifest."""
    schema = Manifest.model_json_schema(by_alias=True, mode="validation")
    # A writer may leave the name to its default; a reader insists on it.
    schema["required"] = ["schema", *schema["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def slots_array(slots: Sequence[Sequence[int]], width: int | None = None) -> IdArray:
    """Return a layer's slots [ep, J]; -1 where a GPU has fewer than the fullest."""
    longest = max(map(len, slots)) if width is None else width
    slots_GJ = np.full((len(slots), longest), -1, dtype=np.int16)
    for gpu, row in enumerate(slots):
        if row:
            slots_GJ[gpu, : len(row)] = row
    return slots_GJ
