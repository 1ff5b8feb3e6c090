"""Model documents ``moe-model/1``: the fields of ``MoEModelSpec`` as strict JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.errors import ModelError
from planner.workload.model_spec import Attention, MoEModelSpec, Precision

SCHEMA = "moe-model/1"
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
CountOrZero = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Strict(BaseModel):
    """No unknown keys, no conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AttentionDocument(_Strict):
    """``attention`` of a model document."""

    heads: Count
    kv_heads: Count
    head_dim: Count
    q_lora_rank: CountOrZero = 0
    kv_lora_rank: CountOrZero = 0
    rope_head_dim: CountOrZero = 0
    v_head_dim: CountOrZero = 0


class ModelDocument(_Strict):
    """A model document."""

    schema_name: Literal["moe-model/1"] = Field(alias="schema")
    name: Annotated[str, Field(min_length=1, max_length=200)]
    layers: Annotated[int, Field(ge=1, le=1024)]
    moe_layers: Annotated[list[CountOrZero], Field(min_length=1)]
    experts: Annotated[int, Field(ge=1, le=2**15 - 1)]
    top_k: Count
    hidden: Count
    expert_ffn: Count
    shared_ffn: CountOrZero = 0
    dense_ffn: CountOrZero = 0
    ffn_matrices: Literal[2, 3] = 3
    attention: AttentionDocument
    vocab: Count
    tied_embeddings: bool = False
    routing_groups: Count = 1
    precision: Precision = "bf16"
    dispatch_dtype: Literal["fp8", "bf16"] = "fp8"
    combine_dtype: Literal["bf16"] = "bf16"
    source: str = ""


def read_model(path: Path) -> MoEModelSpec:
    """Read a model file.

    Raises
    ------
    ModelError
        If it is not a JSON file or breaks a rule, with the JSON pointer.
    """
    if path.is_dir():
        raise ModelError("is a folder", where=str(path), fix="name the file in it")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot be read ({error})", where=str(path)) from error
    try:
        data = json.loads(
            text, object_pairs_hook=_distinct_keys, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"is not JSON ({error})",
            where=str(path),
            fix="docs/traces.md shows a model file",
        ) from error
    if not isinstance(data, dict):
        raise ModelError("must be a JSON object", where=str(path), value=data)
    return parse_model(data, where=str(path))


def parse_model(data: Mapping[str, Any], *, where: str) -> MoEModelSpec:
    """Check a model document and return the model.

    Raises
    ------
    ModelError
        With ``where``, the JSON pointer, the value and the rule.
    """
    try:
        found = ModelDocument.model_validate(dict(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        missing = first["type"] == "missing"
        raise ModelError(
            first["msg"][0].lower() + first["msg"][1:],
            where=f"{where} {pointer}".strip(),
            value=None if missing else first["input"],
            fix="docs/traces.md lists the fields of moe-model/1",
        ) from None
    _check_together(found, where)
    fields = found.model_dump(exclude={"schema_name", "attention", "moe_layers"})
    return MoEModelSpec(
        **fields,
        moe_layers=tuple(found.moe_layers),
        attention=Attention(**found.attention.model_dump()),
    )


def _check_together(model: ModelDocument, where: str) -> None:
    """Rules between fields."""
    attention, numbers = model.attention, model.moe_layers
    latent = attention.kv_lora_rank > 0
    dense = model.layers - len(numbers)
    rules: list[tuple[bool, str, object, str]] = [
        (
            numbers == sorted(set(numbers)) and numbers[-1] < model.layers,
            "moe_layers",
            numbers,
            f"must ascend without repetition, below layers = {model.layers}",
        ),
        (
            model.top_k <= model.experts,
            "top_k",
            model.top_k,
            f"must be at most experts = {model.experts}",
        ),
        (
            model.experts % model.routing_groups == 0,
            "routing_groups",
            model.routing_groups,
            f"must divide experts = {model.experts}",
        ),
        (
            dense == 0 or model.dense_ffn > 0,
            "dense_ffn",
            model.dense_ffn,
            f"must be > 0: {dense} layers are dense",
        ),
        (
            attention.heads % attention.kv_heads == 0,
            "attention/kv_heads",
            attention.kv_heads,
            f"must divide heads = {attention.heads}",
        ),
        (
            not latent or attention.v_head_dim > 0,
            "attention/v_head_dim",
            attention.v_head_dim,
            "must be > 0 where kv_lora_rank is given",
        ),
    ]
    for holds, pointer, value, rule in rules:
        if not holds:
            raise ModelError(
                rule,
                where=f"{where} /{pointer}",
                value=value,
                fix="correct one of the two",
            )


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} appears twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
