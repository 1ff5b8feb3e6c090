"""The bundled model: its claims recomputed, and what an executor relies on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from planner.bundled import tiny_moe_trace, tiny_moe_weights
from planner.errors import ModelError
from planner.executor.model.tiny import TinyMoESpec

torch = pytest.importorskip("torch")

from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.model.moe import MoELayer, at_once  # noqa: E402
from planner.executor.model.weights import load_model, save  # noqa: E402

pytestmark = pytest.mark.torch
SMALL = TinyMoESpec(
    vocab=50, context=32, hidden=16, layers=3, heads=2, experts=8, top_k=3,
    expert_ffn=4, shared_ffn=8, dense_ffn=12,
)  # fmt: skip


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    text = tiny_moe_weights().with_suffix(".json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.fixture(scope="module")
def table() -> Any:
    return pq.read_table(tiny_moe_trace())


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model(tiny_moe_weights(), tiny_moe_weights().with_suffix(".json"))


def rows_of(table: Any) -> list[Any]:
    """Token ids of every sequence, in the order of the trace."""
    seq = table["seq_id"].to_numpy()
    ids = table["token_id"].to_numpy().astype(np.int64)
    return np.split(ids, np.flatnonzero(np.diff(seq)) + 1)


@pytest.fixture(scope="module")
def recomputed(model: Any, table: Any) -> tuple[float, dict[int, Any], float]:
    """Loss per predicted token, every layer's experts, and the closest choice."""
    found: dict[int, list[Any]] = {layer: [] for layer in model.moe}
    leads: list[float] = []

    def noting(layer: int, moe: Any) -> Any:
        def combine(x: Any, ids: Any, gates: Any) -> Any:
            found[layer].append(ids)
            scores = torch.sigmoid(x @ moe.router) + moe.bias
            best = scores.sort(dim=-1, descending=True).values
            last = ids.shape[1] - 1
            leads.append(float((best[:, last] - best[:, last + 1]).min()))
            return moe.combine_local(x, ids, gates)

        return at_once(combine)

    for layer, moe in model.moe.items():
        moe.routed = noting(layer, moe)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows_of(table):
            tokens = torch.from_numpy(row)
            odds = torch.log_softmax(model(tokens[None])[0], dim=-1)
            total -= float(odds[:-1].gather(-1, tokens[1:, None]).sum())
            count += len(row) - 1
    for moe in model.moe.values():
        moe.compute_here()
    return (
        total / count,
        {layer: torch.cat(parts).numpy() for layer, parts in found.items()},
        min(leads),
    )


def test_recorded_held_out_loss_is_that_of_the_weights(
    recomputed: tuple[float, dict[int, Any], float], card: dict[str, Any]
) -> None:
    """Law: the loss in the card is what the committed weights give on the trace."""
    assert recomputed[0] == pytest.approx(card["held_out_loss"], rel=1e-4)
    assert recomputed[0] < np.log(card["spec"]["vocab"]) / 2


def test_recorded_routing_is_that_of_the_weights(
    recomputed: tuple[float, dict[int, Any], float], table: Any
) -> None:
    """Law: every recorded choice is the router's own, and best first."""
    for layer, ids in recomputed[1].items():
        column = table[f"e{layer:02d}"].combine_chunks()
        recorded = column.flatten().to_numpy().reshape(ids.shape)
        same = np.sort(ids, axis=1) == np.sort(recorded, axis=1)
        assert same.all()
        assert (ids == recorded).mean() >= 0.9999


def test_no_recorded_choice_is_close(
    recomputed: tuple[float, dict[int, Any], float],
) -> None:
    """Law: rounding of another machine (some 1e-7) changes no recorded choice."""
    assert recomputed[2] > 3e-6


def test_bundled_files_are_small_and_belong_together(
    card: dict[str, Any], table: Any
) -> None:
    """Law: weights, card and trace name each other by digest and fit their limits."""
    assert tiny_moe_weights().stat().st_size <= 8 * 2**20
    assert tiny_moe_trace().stat().st_size <= 2 * 2**20
    facts = json.loads(table.schema.metadata[b"moe_trace"])
    digest = hashlib.sha256(tiny_moe_weights().read_bytes()).hexdigest()
    assert facts["weights_sha256"] == card["weights_sha256"] == digest
    assert facts["spec"] == card["spec"]
    assert facts["corpus_sha256"] == card["corpus_sha256"]
    assert len(card["vocabulary"]) == card["spec"]["vocab"] - 257


def test_trace_holds_whole_sequences_of_all_tags(table: Any) -> None:
    """Law: positions count from 0 in every sequence; all tags are there."""
    lengths = [len(row) for row in rows_of(table)]
    assert 200 <= len(lengths) <= 260
    assert 24 <= min(lengths) < max(lengths) <= 128
    assert 14_000 <= sum(lengths) == table.num_rows <= 18_000
    assert len(set(table["tag"].to_pylist())) == 7
    expected = np.concatenate([np.arange(n) for n in lengths])
    assert np.array_equal(table["pos"].to_numpy(), expected)


def test_every_expert_of_every_layer_is_used(table: Any, card: dict[str, Any]) -> None:
    """Law: loads are skewed as in models in use, and no expert is dead."""
    spec = TinyMoESpec.from_dict(card["spec"])
    for layer in spec.config.moe_layers:
        ids = table[f"e{layer:02d}"].combine_chunks().flatten().to_numpy()
        load = np.bincount(ids, minlength=spec.experts)
        assert load.min() > 0
        assert 1.3 < load.max() / load.mean() < 3


def test_later_tokens_do_not_change_earlier_logits(model: Any) -> None:
    """Law: attention is causal."""
    tokens = torch.arange(40)[None] * 17 % 2048
    changed = tokens.clone()
    changed[0, 25:] += 1
    with torch.no_grad():
        first, second = model(tokens), model(changed)
    torch.testing.assert_close(first[:, :25], second[:, :25])
    assert not torch.allclose(first[:, 25], second[:, 25])


def test_bias_selects_but_does_not_weigh() -> None:
    """Law: the bias takes part in the choice alone; gates are scores over their sum."""
    layer = MoELayer(SMALL.config)
    layer.bias[5] = 100.0
    x = torch.randn(20, SMALL.hidden)
    ids, gates = layer.route(x)
    assert ids.dtype == torch.int64
    assert (ids[:, 0] == 5).all()
    chosen = torch.sigmoid(x @ layer.router).gather(-1, ids)
    torch.testing.assert_close(gates, chosen / chosen.sum(-1, keepdim=True))


def test_local_combination_is_the_sum_token_by_token() -> None:
    """Law: the unsharded experts are the weighted sum of each token's own."""
    layer = MoELayer(SMALL.config)
    x = torch.randn(9, SMALL.hidden)
    ids, gates = layer.route(x)
    w_in, w_out = layer.expert_weights
    expected = torch.stack(
        [
            sum(g * swiglu(row, w_in[e], w_out[e]) for e, g in zip(*pair, strict=True))
            for row, *pair in zip(x, ids.tolist(), gates, strict=True)
        ]
    )
    torch.testing.assert_close(layer.combine_local(x, ids, gates), expected)


def test_routed_replaces_the_routed_experts_only() -> None:
    """Law: an executor replaces the routed experts; the shared one stays."""
    layer = MoELayer(SMALL.config)
    x = torch.randn(2, 5, SMALL.hidden)
    layer.routed = at_once(lambda x, ids, gates: torch.zeros_like(x))
    torch.testing.assert_close(layer(x), layer.shared(x))


def test_saved_model_loads_as_it_was_in_float16(tmp_path: Path) -> None:
    """Law: a saved model comes back rounded to float16 and nothing else."""
    model = Decoder(SMALL.config)
    save(model, tmp_path / "m.npz", tmp_path / "m.json", {"steps": 0})
    loaded = load_model(tmp_path / "m.npz", tmp_path / "m.json")
    assert loaded.config == SMALL.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half().float())


def test_weights_of_another_spec_are_refused(tmp_path: Path) -> None:
    """Law: weights must fit the dimensions of their card."""
    save(Decoder(SMALL.config), tmp_path / "m.npz", tmp_path / "m.json", {})
    other = {"spec": replace(SMALL, experts=9).to_dict()}
    (tmp_path / "m.json").write_text(json.dumps(other))
    with pytest.raises(ModelError, match=r"m\.npz"):
        load_model(tmp_path / "m.npz", tmp_path / "m.json")


def test_too_long_a_sequence_is_refused() -> None:
    """Law: no sequence is longer than the context."""
    with pytest.raises(ModelError, match="at most 32"):
        Decoder(SMALL.config)(torch.zeros(1, 33, dtype=torch.int64))


@pytest.mark.parametrize(
    "change",
    [{"top_k": 9}, {"hidden": 18}, {"layers": 0}, {"dense_layers": 4}, {"heads": True}],
)
def test_impossible_dimensions_are_refused(change: dict[str, int]) -> None:
    """Law: dimensions are checked where they enter."""
    with pytest.raises(ModelError):
        replace(SMALL, **change)


def test_spec_must_be_complete() -> None:
    """Law: a card names every dimension."""
    values = SMALL.to_dict()
    del values["heads"]
    with pytest.raises(ModelError, match="heads"):
        TinyMoESpec.from_dict(values)
