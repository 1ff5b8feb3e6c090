"""From logits to experts and gates: by hand, against plain Python, and laws."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.bundled import tiny_moe_weights
from planner.executor.gating.gate import GROUP_SCORES, SCORES, Gate
from tests.unit.executor.gating.gates_by_hand import chosen_by_hand

torch = pytest.importorskip("torch")

from planner.executor.gating.choice import choose, weigh  # noqa: E402

pytestmark = pytest.mark.torch


def chosen(gate: Gate, logits: Any, bias: Any = None) -> tuple[Any, Any]:
    """Ids and gates as lists, computed in float64."""
    ids, gates = choose(
        gate,
        torch.tensor(logits, dtype=torch.float64),
        None if bias is None else torch.tensor(bias, dtype=torch.float64),
    )
    assert ids.dtype == torch.int64
    return ids.tolist(), gates.tolist()


def log(*values: float) -> list[float]:
    """Logits whose softmax is proportional to ``values``."""
    return np.log(values).tolist()


def test_softmax_before_the_choice_keeps_its_shares() -> None:
    """Law: without normalising, gates are shares of all experts."""
    gate = Gate(experts=4, top_k=2, normalise=False)
    ids, gates = chosen(gate, [log(1, 4, 2, 3)])
    assert ids == [[1, 3]]
    assert gates[0] == pytest.approx([0.4, 0.3])


def test_normalised_and_scaled_gates_sum_to_the_scale() -> None:
    """Law: first the sum of the chosen is divided out, then the factor comes."""
    gate = Gate(experts=4, top_k=2, scale=2.5)
    assert chosen(gate, [log(1, 4, 2, 3)])[1][0] == pytest.approx([10 / 7, 7.5 / 7])


def test_softmax_of_the_chosen_sees_no_other_expert() -> None:
    """Law: gates after the choice are shares of the chosen alone (Mixtral)."""
    gate = Gate(experts=4, top_k=2, scores="softmax_of_chosen", normalise=False)
    ids, gates = chosen(gate, [log(1, 4, 2, 3), log(9, 4, 3, 1)])
    assert ids == [[1, 3], [0, 1]]
    assert gates[0] == pytest.approx([4 / 7, 3 / 7])
    assert gates[1] == pytest.approx([9 / 13, 4 / 13])


def test_sigmoid_scores_do_not_compete() -> None:
    """Law: sigmoid(0) is a half whatever other experts score."""
    gate = Gate(experts=3, top_k=2, scores="sigmoid", normalise=False)
    assert chosen(gate, [[0.0, 50.0, -50.0]]) == ([[1, 0]], [[1.0, 0.5]])


def test_a_bias_chooses_and_does_not_weigh() -> None:
    """Law: the expert that the bias lifts comes first, with its own small gate."""
    gate = Gate(experts=4, top_k=2, normalise=False)
    ids, gates = chosen(gate, [log(1, 4, 2, 3)], [1.0, 0.0, 0.0, 0.0])
    assert ids == [[0, 1]]
    assert gates[0] == pytest.approx([0.1, 0.4])


def test_groups_count_by_their_best_or_their_two_best() -> None:
    """Law: one strong expert wins by ``best``; two middling ones by ``best_two``."""
    logits = [log(8, 1, 1, 5, 5, 1)]
    best = Gate(experts=6, top_k=2, groups=2, normalise=False)
    two = Gate(experts=6, top_k=2, groups=2, group_score="best_two", normalise=False)
    assert chosen(best, logits)[0] == [[0, 1]]
    assert chosen(two, logits)[0] == [[3, 4]]


def test_a_bias_moves_groups_too() -> None:
    """Law: groups are ranked by selection scores, bias included (DeepSeek-V3)."""
    gate = Gate(experts=4, top_k=1, scores="sigmoid", groups=2, normalise=False)
    assert chosen(gate, [[0.0, 3.0, 1.0, 1.0]], [0.0, 0.0, 0.0, 0.9])[0] == [[3]]


@pytest.mark.parametrize("experts", [4, 64, 300])
def test_equal_scores_go_by_ascending_id(experts: int) -> None:
    """Law: of equals the lower id comes first, at the edge of the choice as well."""
    gate = Gate(experts=experts, top_k=3, scores="sigmoid")
    flat, edge = [0.0] * experts, [0.0] * experts
    edge[2] = 1.0
    ids, _ = chosen(gate, [flat, edge, np.linspace(0, 1, experts).tolist()])
    assert ids == [[0, 1, 2], [2, 0, 1], [experts - 1 - k for k in range(3)]]


def test_equal_groups_go_by_ascending_id() -> None:
    """Law: of equal groups the lower one is kept."""
    gate = Gate(experts=6, top_k=2, groups=3, kept_groups=1)
    assert chosen(gate, [[0.0] * 6])[0] == [[0, 1]]


def test_scores_that_round_to_nothing_give_gates_of_zero() -> None:
    """Law: no division of zero by zero."""
    gate = Gate(experts=3, top_k=2, scores="sigmoid")
    ids, gates = choose(gate, torch.full((1, 3), -200.0))
    assert ids.tolist() == [[0, 1]]
    assert gates.tolist() == [[0.0, 0.0]]


def test_half_precision_logits_are_scored_in_float32() -> None:
    """Law: scores of bfloat16 logits are those of the same numbers in float32."""
    gate = Gate(experts=16, top_k=4)
    logits = torch.randn(50, 16).bfloat16()
    half, full = choose(gate, logits), choose(gate, logits.float())
    assert torch.equal(half[0], full[0])
    assert torch.equal(half[1], full[1])


def test_the_bundled_model_routes_to_the_bit() -> None:
    """Law: sigmoid, bias in the choice, chosen scores over their sum."""
    gate = Gate(experts=64, top_k=6, scores="sigmoid")
    with np.load(tiny_moe_weights(), allow_pickle=False) as arrays:
        router = torch.from_numpy(arrays["blocks.3.ffn.router"].astype(np.float32))
        bias = torch.from_numpy(arrays["blocks.3.ffn.bias"].astype(np.float32))
    x = torch.randn(2000, len(router), generator=torch.Generator().manual_seed(5))
    ids, gates = choose(gate, x @ router, bias)
    scores = torch.sigmoid(x @ router)
    expected = torch.topk(scores + bias, 6, dim=-1).indices
    picked = scores.gather(-1, expected)
    assert torch.equal(ids, expected)
    assert torch.equal(gates, picked / picked.sum(dim=-1, keepdim=True))


def test_leading_axes_are_kept() -> None:
    """Law: tokens [B, S, E] are routed as tokens [B * S, E]."""
    gate = Gate(experts=8, top_k=2, groups=4, kept_groups=2)
    logits = torch.randn(3, 5, 8).round()
    ids, gates = choose(gate, logits)
    flat = choose(gate, logits.reshape(15, 8))
    assert torch.equal(ids.reshape(15, 2), flat[0])
    assert torch.equal(gates.reshape(15, 2), flat[1])


@st.composite
def routings(draw: st.DrawFn) -> tuple[dict[str, Any], Any, Any]:
    """A gate with logits and a bias; small integers, so that ties are common."""
    groups = draw(st.integers(1, 4))
    size = draw(st.integers(2, 4))
    kept = draw(st.integers(1, groups))
    options = {
        "experts": groups * size,
        "top_k": draw(st.integers(1, kept * size)),
        "scores": draw(st.sampled_from(SCORES)),
        "groups": groups,
        "kept_groups": kept,
        "group_score": draw(st.sampled_from(GROUP_SCORES)),
        "normalise": draw(st.booleans()),
        "scale": draw(st.sampled_from([1.0, 0.5, 2.5])),
    }
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.integers(-3, 4, size=(draw(st.integers(0, 6)), groups * size))
    bias = rng.integers(-2, 3, size=groups * size) / 4
    return options, logits.astype(float), bias


@settings(max_examples=300, deadline=None)
@given(routings(), st.booleans())
def test_every_gate_routes_as_plain_python_does(
    routing: tuple[dict[str, Any], Any, Any], biased: bool
) -> None:
    """Law: experts in their order, ties included, and gates, token by token.

    Softmax in torch and in Python may round apart, which would break a tie: there
    only ties without a softmax are compared in their order.
    """
    options, logits, bias = routing
    if options["scores"] == "softmax":
        logits = logits + np.random.default_rng(1).random(logits.shape)
    ids, gates = chosen(
        Gate(**options),
        logits.reshape(-1, options["experts"]),
        bias if biased else None,
    )
    for token, row in enumerate(logits):
        wanted = chosen_by_hand(
            row.tolist(), bias.tolist() if biased else None, **options
        )
        assert ids[token] == wanted[0]
        assert gates[token] == pytest.approx(wanted[1], rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(routings())
def test_a_choice_is_distinct_within_its_groups_and_sums_to_the_scale(
    routing: tuple[dict[str, Any], Any, Any],
) -> None:
    """Law: K distinct experts, at most m groups, gates that sum to the scale."""
    options, logits, bias = routing
    gate = Gate(**{**options, "normalise": True})
    ids, gates = choose(gate, torch.from_numpy(logits), torch.from_numpy(bias))
    for row in ids.tolist():
        assert len(set(row)) == gate.top_k
        assert len({expert // gate.group_size for expert in row}) <= gate.kept_groups
    assert gates.sum(dim=-1).tolist() == pytest.approx([gate.scale] * len(logits))


@settings(max_examples=100, deadline=None)
@given(routings(), st.integers(-64, 64))
def test_a_constant_on_all_logits_changes_nothing_under_softmax(
    routing: tuple[dict[str, Any], Any, Any], shift: int
) -> None:
    """Law: softmax sees differences of logits alone."""
    options, logits, _ = routing
    if options["scores"] == "sigmoid":
        options["scores"] = "softmax"
    gate = Gate(**options)
    ids, gates = choose(gate, torch.from_numpy(logits))
    moved = choose(gate, torch.from_numpy(logits + shift))
    assert torch.equal(ids, moved[0])
    torch.testing.assert_close(gates, moved[1])


@settings(max_examples=100, deadline=None)
@given(routings())
def test_a_bias_never_changes_the_gates_of_the_same_experts(
    routing: tuple[dict[str, Any], Any, Any],
) -> None:
    """Law: where the set of experts stays, each expert's gate stays to the rounding."""
    options, logits, bias = routing
    gate = Gate(**options)
    tokens = torch.from_numpy(logits)
    plain, biased = choose(gate, tokens), choose(gate, tokens, torch.from_numpy(bias))
    for token in range(len(logits)):
        before, after = (
            dict(zip(ids[token].tolist(), gates[token].tolist(), strict=True))
            for ids, gates in (plain, biased)
        )
        if set(before) == set(after):
            assert after == pytest.approx(before)


@settings(max_examples=100, deadline=None)
@given(routings())
def test_experts_decided_on_weigh_what_they_weigh_when_chosen(
    routing: tuple[dict[str, Any], Any, Any],
) -> None:
    """Law: gates depend on logits and experts alone, in whatever order they come."""
    options, logits, bias = routing
    gate = Gate(**options)
    tokens = torch.from_numpy(logits)
    ids, gates = choose(gate, tokens, torch.from_numpy(bias))
    assert torch.equal(weigh(gate, tokens, ids), gates)
    turned = weigh(gate, tokens, ids.flip(-1)).flip(-1)
    torch.testing.assert_close(turned, gates)


@pytest.mark.parametrize("scores", SCORES)
@pytest.mark.parametrize("normalise", [True, False])
def test_gradients_flow_through_the_gates(scores: str, normalise: bool) -> None:
    """Law: gradients are those of finite differences, and the bias gets none."""
    gate = Gate(
        experts=6, top_k=2, scores=scores, groups=3, kept_groups=2, scale=1.5,
        normalise=normalise,
    )  # fmt: skip
    drawn = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 6, dtype=torch.float64, generator=drawn)
    logits.requires_grad_()
    bias = torch.randn(6, dtype=torch.float64, generator=drawn).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda given: choose(gate, given, bias.detach())[1], (logits,)
    )
    ids, gates = choose(gate, logits, bias)
    (gates * torch.arange(2.0)).sum().backward()
    assert not ids.requires_grad
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0
    assert bias.grad is None
