"""Models by name, by file and by fit."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from planner import bundled
from planner.errors import ModelError, TraceError
from planner.executor.model.tiny import TinyMoESpec
from planner.workload.counts import inline_counts
from planner.workload.known_models import KNOWN_MODELS
from planner.workload.memory_terms import embedding_bytes, norm_bytes, shared_bytes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.presets import (
    fits,
    fitting_preset,
    load_model,
    preset_names,
    require_fit,
)
from planner.workload.trace import load_trace

NAMES = (
    "tiny-moe",
    "deepseek-v2-lite",
    "deepseek-v3",
    "deepseek-r1",
    "toy-moe-64e-grouped",
    "paper-16x16",
    "paper-61x256",
    "mixtral-8x7b",
)


def parameters(model: MoEModelSpec) -> int:
    """Count the weights of a grouped-query or latent model by hand."""
    at, hidden = model.attention, model.hidden
    if at.kv_lora_rank:
        key = at.head_dim + at.rope_head_dim
        attention = (
            (at.q_lora_rank * (hidden + at.heads * key) or hidden * at.heads * key)
            + hidden * (at.kv_lora_rank + at.rope_head_dim)
            + at.kv_lora_rank * at.heads * (at.head_dim + at.v_head_dim)
            + at.heads * at.v_head_dim * hidden
        )
    else:
        attention = 2 * hidden * (at.heads + at.kv_heads) * at.head_dim
    dense = (model.layers - len(model.moe_layers)) * model.dense_ffn
    moe = len(model.moe_layers) * (model.experts * model.expert_ffn + model.shared_ffn)
    routers = len(model.moe_layers) * model.experts * hidden
    tables = (1 if model.tied_embeddings else 2) * model.vocab * hidden
    matrices = model.ffn_matrices * hidden * (dense + moe)
    return model.layers * attention + matrices + routers + tables


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("deepseek-v2-lite", 15.7e9),
        ("deepseek-v3", 671e9),
        ("mixtral-8x7b", 46.7e9),
        ("toy-moe-64e-grouped", 4.05e6),
    ],
)
def test_a_preset_has_as_many_parameters_as_published(
    name: str, published: float
) -> None:
    """All dimensions together: within half a percent of the published count."""
    assert parameters(load_model(name)) == pytest.approx(published, rel=5e-3)


def test_every_preset_names_its_source_and_is_a_legal_document() -> None:
    """The presets obey the rules that a model file must obey."""
    assert preset_names() == NAMES
    for name in NAMES:
        model = load_model(name)
        assert model.source
        assert load_model(document(model)) == model


def test_the_papers_expert_is_268_megabytes() -> None:
    """2 x 4096 x 16384 x 2 bytes, sixteen of them in sixteen layers, top-2."""
    paper = load_model("paper-16x16")
    assert paper.expert_bytes == 268_435_456
    shape = len(paper.moe_layers), paper.experts, paper.top_k, paper.hidden
    assert shape == (16, 16, 2, 4096)


def document(model: MoEModelSpec) -> dict[str, Any]:
    """Return the document of a model."""
    data = asdict(model) | {"schema": "moe-model/1"}
    data["moe_layers"] = list(model.moe_layers)
    return data


def test_a_model_file_reads_as_the_model_it_describes(tmp_path: Path) -> None:
    """Every field survives; optional ones have the defaults of the spec."""
    model = replace(load_model("mixtral-8x7b"), name="own", routing_groups=4)
    path = tmp_path / "own.json"
    path.write_text(json.dumps(document(model)), encoding="utf-8")
    assert load_model(path) == model
    assert load_model(str(path)) == model
    short = document(model)
    for name in ("precision", "dispatch_dtype", "combine_dtype", "source"):
        del short[name]
    assert load_model(short) == replace(model, source="")


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"hidden": 0}, "/hidden: 0"),
    ({"hidden": -5}, "/hidden: -5"),
    ({"hidden": 4096.0}, "/hidden: 4096.0"),
    ({"hidden": True}, "/hidden: True"),
    ({"hidden": "4096"}, "/hidden: '4096'"),
    ({"speed": 1}, "/speed: 1"),
    ({"schema": "moe-model/2"}, "/schema: 'moe-model/2'"),
    ({"schema": None}, "/schema"),
    ({"top_k": 9}, "/top_k: 9 must be at most experts = 8"),
    ({"moe_layers": []}, "/moe_layers"),
    ({"moe_layers": [1, 0]}, "/moe_layers: [1, 0] must ascend"),
    ({"moe_layers": [0, 0]}, "/moe_layers: [0, 0] must ascend"),
    ({"moe_layers": [32]}, "/moe_layers: [32] must ascend"),
    ({"moe_layers": [0]}, "/dense_ffn: 0 must be > 0: 31 layers are dense"),
    ({"routing_groups": 3}, "/routing_groups: 3 must divide experts = 8"),
    ({"precision": "int4"}, "/precision: 'int4'"),
    ({"ffn_matrices": 4}, "/ffn_matrices: 4"),
    ({"attention": {"heads": 3}}, "/attention/kv_heads"),
    (
        {"attention": {"heads": 6, "kv_heads": 4, "head_dim": 8}},
        "/attention/kv_heads: 4 must divide heads = 6",
    ),
    (
        {"attention": {"heads": 6, "kv_heads": 6, "head_dim": 8, "kv_lora_rank": 9}},
        "/attention/v_head_dim: 0 must be > 0",
    ),
]


@pytest.mark.parametrize(("change", "words"), BROKEN, ids=lambda value: str(value)[:40])
def test_a_broken_model_is_refused_at_its_pointer(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """The message names file, JSON pointer, value and rule; exit code 3."""
    path = tmp_path / "own.json"
    data = document(load_model("mixtral-8x7b")) | change
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert caught.value.exit_code == 3
    assert f"{path} {words}" in str(caught.value)


def test_a_missing_field_is_named() -> None:
    """The pointer is that of the field that should be there."""
    data = document(load_model("mixtral-8x7b"))
    del data["vocab"]
    with pytest.raises(ModelError, match="/vocab: field required"):
        load_model(data)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GPU0 GPU1", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"hidden": 1, "hidden": 2}', "'hidden' appears twice"),
        ('{"hidden": NaN}', "NaN is not a JSON number"),
        ('{"hidden": 1e999}', "/schema"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=lambda text: str(text)[:20],
)
def test_a_file_that_is_no_model_is_refused(
    text: str, words: str, tmp_path: Path
) -> None:
    """Text, lists, repeated keys and NaN are not a model."""
    path = tmp_path / "own.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=words):
        load_model(path)


def test_names_folders_and_bytes_that_are_no_model_are_refused(tmp_path: Path) -> None:
    """An unknown name lists the known ones."""
    binary = tmp_path / "own.bin"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match=r"'gpt-9'.*tiny-moe, deepseek-v2-lite"):
        load_model("gpt-9")
    with pytest.raises(ModelError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(binary)


def test_a_trace_fits_by_experts_top_k_and_layers() -> None:
    """Rule 11: each of the three alone makes a mismatch, and all are told."""
    table = inline_counts(
        {"layers": list(range(32)), "tokens": [[1] * 8] * 32, "top_k": 2}
    )
    mixtral = load_model("mixtral-8x7b")
    assert fits(table, mixtral) == []
    assert fitting_preset(table) == "mixtral-8x7b"
    require_fit(table, mixtral)
    for change, word in (
        ({"num_experts": 9}, "9 experts"),
        ({"top_k": 1}, "top-1"),
        ({"layer_numbers": (0, 1, 3)}, "MoE layers 0-1, 3"),
    ):
        other = replace(table, **change)
        (found,) = fits(other, mixtral)
        assert word in found
        with pytest.raises(TraceError, match="fits no known model"):
            fitting_preset(other)
        with pytest.raises(TraceError, match=f"{word}.*give the trace's own model"):
            require_fit(other, mixtral)
    with pytest.raises(TraceError, match="use --model mixtral-8x7b"):
        require_fit(table, load_model("paper-16x16"))


def test_only_models_of_deepseek_v3s_shape_fit_the_same_traces() -> None:
    """Elsewhere the default model of a trace is unambiguous; there its text decides."""
    shapes = [(m.experts, m.top_k, m.moe_layers) for m in KNOWN_MODELS.values()]
    alike = [
        m
        for m, shape in zip(KNOWN_MODELS, shapes, strict=True)
        if shapes.count(shape) > 1
    ]
    assert alike == ["deepseek-v3", "deepseek-r1", "paper-61x256"]


def test_the_shared_traces_fit_their_models(shared_data: Path) -> None:
    """V2-Lite and the toy are found by shape, R1 by shape and name."""
    folder = shared_data / "traces"
    for name in ("deepseek-v2-lite", "toy-moe-64e-grouped"):
        assert fitting_preset(load_trace(folder / f"{name}.parquet")) == name
    counts = load_trace(folder / "deepseek-r1_counts.parquet", workload="prefill_in512")
    assert fitting_preset(counts) == "deepseek-r1"


def test_the_tiny_model_is_the_one_the_executor_runs() -> None:
    """The preset has the dimensions of the bundled model's own description."""
    spec, model = TinyMoESpec(), load_model("tiny-moe")
    assert (spec.layers, spec.config.moe_layers) == (model.layers, model.moe_layers)
    assert (spec.experts, spec.top_k, spec.hidden) == (64, 6, model.hidden)
    assert (spec.experts, spec.top_k) == (model.experts, model.top_k)
    widths = spec.expert_ffn, spec.shared_ffn, spec.dense_ffn
    assert widths == (model.expert_ffn, model.shared_ffn, model.dense_ffn)
    at = model.attention
    assert (at.heads, at.heads * at.head_dim) == (spec.heads, spec.hidden)
    assert spec.vocab == model.vocab
    assert embedding_bytes(model) == spec.vocab * spec.hidden * 4
    assert shared_bytes(model) == 6 * 3 * spec.hidden * spec.shared_ffn * 4
    assert norm_bytes(model) == (2 * spec.layers + 1) * spec.hidden * 4


def test_the_bundled_trace_fits_the_tiny_model() -> None:
    """Default model and default trace belong together, down to the widths."""
    trace = load_trace(bundled.tiny_moe_trace())
    assert fitting_preset(trace) == "tiny-moe"
    assert trace.metadata["spec"] == TinyMoESpec().to_dict()
