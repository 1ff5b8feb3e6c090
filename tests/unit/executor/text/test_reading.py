"""A text read by the model alone: loads, biases, capacity and what they do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.executor.gating.balancing import Balance, relative
from planner.executor.gating.capacity import Dropped, capacity
from planner.executor.model.tiny import TinyMoESpec

torch = pytest.importorskip("torch")

from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.text.reading import (  # noqa: E402
    Reader,
    _Notes,
    balanced,
    biased,
    loads,
)

pytestmark = pytest.mark.torch
SPEC = TinyMoESpec(
    vocab=50, context=32, hidden=16, layers=3, heads=2, experts=8, top_k=3,
    expert_ffn=4, shared_ffn=8, dense_ffn=12,
)  # fmt: skip
LENGTHS = (12, 32, 25, 32, 7)


@pytest.fixture(scope="module")
def reader() -> Any:
    torch.manual_seed(3)
    model = Decoder(SPEC.config).eval()
    tokens = np.random.default_rng(4).integers(50, size=sum(LENGTHS))
    ends = np.cumsum(LENGTHS)
    rows = [np.arange(e - n, e) for e, n in zip(ends, LENGTHS, strict=True)]
    batches = [padded(rows[:2]), padded(rows[2:])]
    with torch.no_grad():
        yield Reader(model, batches, tokens)


def padded(rows: list[Any]) -> Any:
    """Rows of unlike lengths side by side, -1 after their ends."""
    found = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
    for at, row in enumerate(rows):
        found[at, : len(row)] = row
    return found


def alone(reader: Reader, first: int, length: int) -> tuple[Any, Any]:
    """Chosen experts and logarithms of odds of one sequence on its own."""
    tokens = torch.from_numpy(reader._token_ids[first : first + length])[None]
    chosen: list[Any] = []
    for layer in reader.layers:

        def routed(x: Any, ids: Any, gates: Any, layer: Any = layer) -> Any:
            chosen.append(ids.numpy())
            yield from ()
            return layer.combine_local(x, ids, gates)

        layer.routed = routed
    odds = torch.log_softmax(reader.model(tokens)[0], dim=-1)
    for layer in reader.layers:
        layer.compute_here()
    return np.stack(chosen), odds


def test_a_batch_is_read_as_its_sequences_alone(reader: Reader) -> None:
    """Law: padding and neighbours change no choice and no odds."""
    reading = reader.read(0)
    assert reading.rows_N.tolist() == list(range(44))
    for first, length in ((0, 12), (12, 32)):
        ids, odds = alone(reader, first, length)
        assert np.array_equal(reading.wanted_LNK[:, first : first + length], ids)
        torch.testing.assert_close(reading.odds_NV[first : first + length], odds)


def test_without_biases_and_limits_nothing_changes(reader: Reader) -> None:
    """Law: KL 0, the same perplexity, the same experts; perplexity is the text's."""
    before, found = reader.compared(np.zeros((2, 8)))
    change = found.outputs
    assert change is not None
    assert np.array_equal(before, found.wanted_LTK)
    assert np.array_equal(before, found.kept_LTK)
    assert change.kl == 0
    lost, count = 0.0, 0
    for first, length in zip(np.cumsum((0, *LENGTHS)), LENGTHS, strict=False):
        _, odds = alone(reader, int(first), length)
        words = reader._token_ids[first + 1 : first + length]
        lost -= float(odds[range(length - 1), words].sum())
        count += length - 1
    assert change.perplexity_before == pytest.approx(np.exp(lost / count), rel=1e-5)
    assert change.perplexity_after == change.perplexity_before


def test_biases_are_added_for_a_while_and_taken_back(reader: Reader) -> None:
    """Law: a bias of 9 brings an expert to every token; after it the model is as was.

    The KL is that of the two runs' odds, computed here from the text's sequences.
    """
    own = [layer.bias.clone() for layer in reader.layers]
    bias = np.zeros((2, 8))
    bias[1, 5] = 9
    before, found = reader.compared(bias)
    after, change = found.wanted_LTK, found.outputs
    assert change is not None
    assert np.array_equal(before[0], after[0])
    assert (after[1] == 5).any(axis=1).all()
    for layer, kept in zip(reader.layers, own, strict=True):
        assert torch.equal(layer.bias, kept)
    total = 0.0
    for first, length in zip(np.cumsum((0, *LENGTHS)), LENGTHS, strict=False):
        _, plain = alone(reader, int(first), length)
        with biased(reader.layers, bias):
            _, other = alone(reader, int(first), length)
        total += float((plain.exp() * (plain - other)).sum())
    assert change.kl == pytest.approx(total / sum(LENGTHS), rel=1e-4)
    assert change.kl > 0


def test_capacity_limits_every_expert_of_every_batch(reader: Reader) -> None:
    """Law: no load of a batch is above the capacity, and what is missing is counted."""
    before, found = reader.compared(np.zeros((2, 8)), capacity_factor=0.9)
    after = found.kept_LTK
    for batch in reader.batches:
        rows = batch[batch >= 0]
        room = capacity(0.9, 3 * rows.size, 8)
        assert loads(after[:, rows], 8).max() == room
    assert np.array_equal(found.wanted_LTK[0], before[0])
    assert found.dropped == Dropped.between(found.wanted_LTK, after)
    assert found.dropped.pairs >= 0.1 * found.dropped.all_pairs - 32
    assert found.outputs is not None
    assert found.outputs.kl > 0
    _, plenty = reader.compared(np.zeros((2, 8)), capacity_factor=8.0)
    assert np.array_equal(plenty.kept_LTK, before)
    assert plenty.outputs is not None
    assert plenty.outputs.kl == 0


def test_newcomers_are_the_experts_that_only_a_bias_brought(reader: Reader) -> None:
    """Law: in the first layer, where both see the same, who was not chosen before.

    Their gates are multiplied and no other gate changes, so outputs come closer.
    """
    bias = np.zeros((2, 8))
    bias[0, 5] = 9
    before, whole = reader.compared(bias)
    half = Reader(reader.model, reader.batches, reader._token_ids, newcomers=0.5)
    _, found = half.compared(bias)
    assert whole.newcomer_LTK is None
    assert found.newcomer_LTK is not None
    had = (found.wanted_LTK[0][:, :, None] == before[0][:, None]).any(axis=2)
    assert np.array_equal(found.newcomer_LTK[0], ~had)
    assert 0 < found.newcomer_LTK[0].sum() == (before[0] != 5).all(axis=1).sum()
    assert not found.newcomer_LTK[1].any()
    assert found.outputs is not None
    assert whole.outputs is not None
    assert 0 < found.outputs.kl < whole.outputs.kl


def test_halved_newcomers_weigh_half(reader: Reader) -> None:
    """Law: a layer's routed output is the sum with the newcomers' gates halved."""
    layer = reader.layers[0]
    x = torch.randn(12, 16, generator=torch.Generator().manual_seed(2))
    with biased(reader.layers, np.tile(np.linspace(0, 0.5, 8), (2, 1))):
        ids, gates = layer.route(x)
    own, _ = layer.route(x)
    w_in, w_out = layer.expert_weights
    expected = torch.zeros_like(x)
    for token in range(12):
        for expert, gate in zip(ids[token].tolist(), gates[token], strict=True):
            share = gate if expert in own[token].tolist() else gate / 2
            done = layer.apply_expert(x[token], w_in[expert], w_out[expert])
            expected[token] += share * done
    assert not torch.equal(ids, own)
    notes = _Notes(layer, layer.bias, 0.5, None)
    torch.testing.assert_close(notes.combine(x, ids, gates), expected)


def test_tokens_that_are_not_routed_have_no_experts(reader: Reader) -> None:
    """Law: ids that the model routes nowhere are null, and every token has odds."""
    token = int(reader._token_ids[3])
    torch.manual_seed(3)
    model = Decoder(replace(SPEC.config, unrouted_ids=(token,))).eval()
    other = Reader(model, reader.batches, reader._token_ids)
    before, found = other.compared(np.zeros((2, 8)), capacity_factor=0.9)
    unrouted_T = reader._token_ids == token
    assert (before[:, unrouted_T] == -1).all()
    assert (before[:, ~unrouted_T] >= 0).all()
    assert (found.wanted_LTK[:, unrouted_T] == -1).all()
    assert found.dropped.all_tokens == 2 * int((~unrouted_T).sum())
    assert len(other.read(0).odds_NV) == 44


def test_a_skewed_text_is_balanced_and_the_path_is_told(reader: Reader) -> None:
    """Law: the last step's worst load is that of the biases found, read again."""
    balance = Balance(rule="prices", step=0.02, window=2, steps=60, target=1.2)
    bias, worst = balanced(reader, balance)
    assert worst.shape == (60, 2)
    before, found = reader.compared(bias)
    first = relative(loads(reader.read(0).wanted_LNK, 8)).max(axis=1)
    assert worst[0].tolist() == first.tolist()
    reached = relative(loads(found.wanted_LTK, 8)).max()
    assert reached < 1.3 < relative(loads(before, 8)).max()
    assert worst[-1].max() == pytest.approx(reached, abs=0.1)
