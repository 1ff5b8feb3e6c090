"""Dimensions of decoders: what is refused, and known models at another size."""

import json
from dataclasses import replace
from typing import Any

import pytest

from planner.errors import ModelError
from planner.executor.gating.gate import Gate
from planner.executor.model.config import DecoderConfig, GroupedDims, LatentDims
from planner.executor.model.sized import decoder_config, gate_of
from planner.executor.model.tiny import TinyMoESpec
from planner.workload.memory_terms import kv_token_bytes
from planner.workload.model_spec import BYTES_PER_VALUE
from planner.workload.presets import load_model, preset_names
from tests.unit.executor.model.toys import KINDS, config_of

GROUPED = config_of(KINDS["grouped"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_comes_back_from_json(kind: str) -> None:
    """Law: JSON holds all dimensions."""
    config = config_of(KINDS[kind], unrouted_ids=(3, 7), activation="gelu", tied=False)
    again = DecoderConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "hidden: 0 must be an integer >= 1"),
        ({"layers": True}, "layers: True must be an integer"),
        ({"shared_ffn": -1}, "shared_ffn: -1 must be an integer >= 0"),
        ({"dense_layers": 4}, "dense_layers: 4 must not exceed layers"),
        ({"dense_ffn": 0}, "dense_ffn: 0 must be >= 1 where there are dense layers"),
        ({"activation": "relu"}, "activation: 'relu' must be one of swiglu, gelu"),
        ({"unrouted_ids": (1, 50)}, "unrouted_ids: 50 must be from 0 to 49"),
    ],
)
def test_impossible_dimensions_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    """Law: each error names where, the value and the rule."""
    with pytest.raises(ModelError, match=message):
        replace(GROUPED, **changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: GroupedDims(heads=3, kv_heads=2, head_dim=4),
            "heads: 3 must be a mul",
        ),
        (
            lambda: GroupedDims(heads=2, kv_heads=2, head_dim=3),
            "head_dim: 3 must be ev",
        ),
        (lambda: GroupedDims(heads=2, kv_heads=0, head_dim=4), "kv_heads: 0 must be"),
        (
            lambda: LatentDims(
                heads=2, kv_lora_rank=4, rope_head_dim=5, head_dim=4, v_head_dim=4
            ),
            "rope_head_dim: 5 must be even",
        ),
        (
            lambda: LatentDims(
                heads=2, kv_lora_rank=0, rope_head_dim=4, head_dim=4, v_head_dim=4
            ),
            "kv_lora_rank: 0 must be an integer >= 1",
        ),
    ],
)
def test_impossible_attention_is_refused(make: Any, message: str) -> None:
    """Law: attention dimensions are checked where they are made."""
    with pytest.raises(ModelError, match=message):
        make()


def test_a_document_must_be_complete_and_of_a_known_kind() -> None:
    """Law: nothing is guessed, nothing is ignored."""
    values = GROUPED.to_dict()
    with pytest.raises(ModelError, match="hidden"):
        DecoderConfig.from_dict({k: v for k, v in values.items() if k != "hidden"})
    for name in ("attention", "gate"):
        with pytest.raises(ModelError, match="extra"):
            DecoderConfig.from_dict({**values, name: {**values[name], "extra": 1}})
    other = {**values, "attention": {**values["attention"], "kind": "linear"}}
    with pytest.raises(ModelError, match=r"attention\.kind: 'linear' must be one of"):
        DecoderConfig.from_dict(other)


@pytest.mark.parametrize("name", preset_names())
def test_a_known_model_keeps_its_kinds_at_toy_size(name: str) -> None:
    """Law: sizes shrink; kinds, experts and layers stay."""
    spec = load_model(name)
    config = decoder_config(spec, hidden=32)
    assert config.moe_layers == spec.moe_layers
    assert (config.experts, config.top_k) == (spec.experts, spec.top_k)
    assert config.gate.groups == spec.routing_groups
    assert bool(config.shared_ffn) == bool(spec.shared_ffn)
    assert bool(config.dense_layers) == bool(spec.dense_ffn)
    assert config.activation == {2: "gelu", 3: "swiglu"}[spec.ffn_matrices]
    assert isinstance(config.attention, LatentDims) == bool(spec.attention.kv_lora_rank)
    if isinstance(config.attention, LatentDims):
        ranks = (config.attention.q_lora_rank, spec.attention.q_lora_rank)
        assert bool(ranks[0]) == bool(ranks[1])
    else:
        group = spec.attention.heads // spec.attention.kv_heads
        assert config.attention.heads == group * config.attention.kv_heads


@pytest.mark.parametrize("name", preset_names())
def test_a_known_model_at_its_own_size_is_itself(name: str) -> None:
    """Law: full size has the published widths, and the cache the planner's bytes."""
    spec = load_model(name)
    config = decoder_config(spec, hidden=spec.hidden, vocab=spec.vocab)
    at, dims = config.attention, spec.attention
    assert (at.heads, at.head_dim) == (dims.heads, dims.head_dim)
    assert (config.expert_ffn, config.shared_ffn) == (spec.expert_ffn, spec.shared_ffn)
    assert config.dense_ffn == spec.dense_ffn
    width = max(2, BYTES_PER_VALUE[spec.precision])
    assert spec.layers * at.cached_values * width == kv_token_bytes(spec, 1)


def test_the_bundled_model_is_its_preset() -> None:
    """Law: the card's dimensions and the planner's preset give one decoder."""
    preset = decoder_config(load_model("tiny-moe"), hidden=96, vocab=2048)
    assert preset == TinyMoESpec().config


def test_gates_are_the_published_ones() -> None:
    """Law: DeepSeek-V3 and Mixtral choose as their configs say; others by softmax."""
    assert gate_of(load_model("deepseek-v3")) == Gate(
        experts=256,
        top_k=8,
        scores="sigmoid",
        groups=8,
        kept_groups=4,
        group_score="best_two",
        scale=2.5,
    )
    assert gate_of(load_model("mixtral-8x7b")).scores == "softmax_of_chosen"
    unknown = replace(load_model("deepseek-v3"), name="mine")
    assert gate_of(unknown) == Gate(experts=256, top_k=8, groups=8, kept_groups=8)


def test_models_that_no_decoder_has_are_refused() -> None:
    """Law: dense layers come first; experts have two or three matrices."""
    spec = load_model("mixtral-8x7b")
    with pytest.raises(ModelError, match="last layers"):
        decoder_config(replace(spec, moe_layers=(0, 2)))
    with pytest.raises(ModelError, match="ffn_matrices: 4 must be 2"):
        decoder_config(replace(spec, ffn_matrices=4))
    with pytest.raises(ModelError, match="hidden: 0 must be"):
        decoder_config(spec, hidden=0)
