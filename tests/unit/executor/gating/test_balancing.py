"""Biases that follow loads: by hand, options, and laws on a made-up router."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.executor.gating.balancing import RULES, Balance, DynamicBalance, relative


def after(balance: Balance, *loads: list[int]) -> list[float]:
    """Biases after some steps with given loads of one layer."""
    dynamic = DynamicBalance(balance, (len(loads[0]),))
    for load in loads:
        dynamic.observe(np.array(load))
    found: list[float] = dynamic.bias_LE.tolist()
    return found


def test_before_the_first_step_no_bias_is_set() -> None:
    """Law: balancing starts from the model as it is."""
    assert not DynamicBalance(Balance(), (2, 3)).bias_LE.any()


def test_sign_moves_all_by_one_step() -> None:
    """Law: loads 6, 2, 4 have the mean 4."""
    found = after(Balance(rule="sign", step=0.1), [6, 2, 4])
    assert found == pytest.approx([-0.1, 0.1, 0.0])


def test_proportional_moves_by_the_distance() -> None:
    """Law: relative loads 1.5, 0.5, 1 are 0.5, -0.5, 0 away."""
    found = after(Balance(rule="proportional", step=0.1), [6, 2, 4])
    assert found == pytest.approx([-0.05, 0.05, 0.0])


def test_prices_touch_only_what_is_above_the_target() -> None:
    """Law: relative loads 2, 0.5, 0.5 with target 1.25: one price of 0.1 * 0.75."""
    found = after(Balance(step=0.1, target=1.25, window=1), [8, 2, 2])
    assert found == pytest.approx([-0.075, 0.0, 0.0])


def test_a_price_falls_again_and_never_below_nothing() -> None:
    """Law: loads at 0.25 take back 0.1 * 1 per step, down to 0."""
    balance = Balance(step=0.1, target=1.25, window=1)
    down = [1, 5, 6]
    assert after(balance, [12, 0, 0], down)[0] == pytest.approx(-0.075)
    assert after(balance, [12, 0, 0], down, down)[0] == 0.0


def test_the_window_adds_up_its_steps_alone() -> None:
    """Law: with a window of 2 the third step sees the second and itself."""
    dynamic = DynamicBalance(Balance(window=2), (2,))
    for load in ([9, 0], [3, 5], [1, 1]):
        dynamic.observe(np.array(load))
    assert dynamic.load_LE.tolist() == [4, 6]


@pytest.mark.parametrize("rule", RULES)
def test_no_bias_passes_its_bound(rule: str) -> None:
    """Law: whatever the loads, biases stay within the bound."""
    balance = Balance(rule=rule, step=0.3, bound=0.5)
    found = after(balance, *[[9, 0, 0]] * 5)
    assert min(found) == -0.5
    assert max(found) <= 0.5


def test_a_layer_without_tokens_moves_nothing() -> None:
    """Law: no load is an equal load."""
    assert relative(np.zeros((1, 3), dtype=np.int64)).tolist() == [[1, 1, 1]]
    assert after(Balance(rule="sign"), [0, 0, 0]) == [0, 0, 0]


def test_options_are_read_by_name() -> None:
    """Law: what is not named has its default."""
    assert Balance.parse("default") == Balance()
    assert Balance.parse("rule=sign, step=0.01,window=3") == Balance(
        rule="sign", step=0.01, window=3
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "write NAME=VALUE"),
        ("speed=1", "'speed=1': write NAME=VALUE once each, of rule, step"),
        ("step", "'step': write NAME=VALUE"),
        ("step=1,step=2", "'step=2': write NAME=VALUE once each"),
        ("step=fast", "step=fast: must be a number"),
        ("window=1.5", "window=1.5: must be an integer"),
        ("window=0", "window=0: must be >= 1"),
        ("steps=-1", "steps=-1: must be >= 1"),
        ("step=0", "step=0.0: must be finite and > 0"),
        ("bound=inf", "bound=inf: must be finite and > 0"),
        ("target=0.9", "target=0.9: must be finite and >= 1"),
        ("newcomers=0", "newcomers=0.0: must be > 0 and <= 1"),
        ("newcomers=2", "newcomers=2.0: must be > 0 and <= 1"),
        ("rule=best", "rule=best: must be one of prices, sign, proportional"),
    ],
)
def test_options_that_do_not_exist_are_refused(text: str, message: str) -> None:
    """Law: one error says what, and what is allowed."""
    with pytest.raises(UsageError) as caught:
        Balance.parse(text)
    assert message in str(caught.value)
    assert str(caught.value).startswith("--balance ")


def routed(scores_TE: Any, bias_E: Any, top_k: int) -> Any:
    """Loads of the top-k by score plus bias."""
    ids = np.argsort(-(scores_TE + bias_E), axis=1, kind="stable")[:, :top_k]
    return ids, np.bincount(ids.ravel(), minlength=scores_TE.shape[1])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(RULES))
def test_a_skewed_router_comes_to_the_target(seed: int, rule: str) -> None:
    """Law: on random scores with popular experts every rule brings loads down."""
    rng = np.random.default_rng(seed)
    scores = rng.random((800, 16)) + rng.normal(0, 0.3, 16)
    step = {"prices": 0.03, "sign": 0.005, "proportional": 0.03}[rule]
    dynamic = DynamicBalance(
        Balance(rule=rule, step=step, window=1, bound=3), scores.shape[1:]
    )
    for _ in range(200):
        dynamic.observe(routed(scores, dynamic.bias_LE, 3)[1])
    final = routed(scores, dynamic.bias_LE, 3)[1]
    assert relative(final).max() < 1.2


@pytest.mark.parametrize("seed", range(5))
def test_prices_lose_no_more_score_than_the_best_choice_under_their_loads(
    seed: int,
) -> None:
    """Law: choices at prices are a greatest total score under the loads they make.

    The oracle is the transport problem itself: K experts per token, and no more
    tokens on a priced expert than the prices left there.
    """
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(seed)
    scores = rng.random((40, 5)) + np.array([0.5, 0.2, 0, 0, 0])
    dynamic = DynamicBalance(Balance(step=0.02, window=1), (5,))
    for _ in range(100):
        dynamic.observe(routed(scores, dynamic.bias_LE, 2)[1])
    ids, load = routed(scores, dynamic.bias_LE, 2)
    priced = np.flatnonzero(dynamic.bias_LE < 0)
    assert priced.size
    per_token = np.kron(np.eye(40), np.ones(5))
    per_expert = np.kron(np.ones(40), np.eye(5))
    best = optimize.linprog(
        -scores.ravel(),
        A_eq=per_token, b_eq=np.full(40, 2),
        A_ub=per_expert[priced], b_ub=load[priced],
        bounds=(0, 1),
    )  # fmt: skip
    own = np.take_along_axis(scores, ids, axis=1).sum()
    assert own == pytest.approx(-best.fun)
