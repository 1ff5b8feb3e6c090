"""Choices decided by one rank for all, and moved between ranks."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from planner import bundled
from planner.executor.gating.balancing import Balance
from planner.executor.gating.rerouting import OutputChange, Rerouting
from planner.executor.replay import replay
from planner.executor.result import OUTPUT_TOLERANCE
from planner.workload.tokens import RoutingTrace
from planner.workload.trace import load_trace
from tests.integration.test_distributed import job
from tests.unit.executor.replays import Seen, predicted

torch = pytest.importorskip("torch")

from planner.executor.host import LocalHost, ProcessHost  # noqa: E402
from planner.executor.text.reroute import (  # noqa: E402
    Text,
    decided_once,
    reroute_text,
)
from planner.executor.world.standing import StandingWorld  # noqa: E402

if TYPE_CHECKING:
    from planner.executor.world.nursery import Nursery

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def world(nursery: "Nursery") -> Any:
    with StandingWorld(2, nursery=nursery) as found:
        yield found


def decision(seed: int, *, newcomers: bool) -> tuple[list[Rerouting], Any]:
    """Two made-up parts."""
    rng = np.random.default_rng(seed)
    parts = []
    for tokens in (5, 9):
        wanted = rng.integers(0, 8, (2, tokens, 3)).astype(np.int16)
        kept = np.where(rng.random(wanted.shape) < 0.2, -1, wanted).astype(np.int16)
        parts.append(
            Rerouting(
                wanted_LTK=wanted,
                kept_LTK=kept,
                newcomer_LTK=rng.random(wanted.shape) < 0.5 if newcomers else None,
                newcomers=0.5 if newcomers else 1.0,
                bias_LE=rng.random((2, 8)),
                outputs=OutputChange(
                    kl=0.1 * seed, perplexity_before=9.25, perplexity_after=1 / 3
                ),
            )
        )
    return parts, rng.random((4, 2))


def told(world: Any, own: Any) -> tuple[Any, int]:
    """What one rank is told, and how often it was asked."""
    asked = []

    def decide() -> Any:
        asked.append(1)
        return own

    return decided_once(ProcessHost(world.group, world.device), decide), len(asked)


@pytest.mark.parametrize("newcomers", [False, True])
def test_the_first_rank_decides_for_all(world: Any, newcomers: bool) -> None:
    """Law: what rank 0 decided comes to rank 1 as it is; rank 1 is not asked."""
    own = [decision(seed, newcomers=newcomers) for seed in (1, 2)]
    found = world.run_each(told, [[each] for each in own])
    assert [asked for _, asked in found] == [1, 0]
    for (reroutings, worst), _ in found:
        assert np.array_equal(worst, own[0][1])
        for got, given in zip(reroutings, own[0][0], strict=True):
            assert np.array_equal(got.wanted_LTK, given.wanted_LTK)
            assert np.array_equal(got.kept_LTK, given.kept_LTK)
            assert np.array_equal(got.bias_LE, given.bias_LE)
            assert got.newcomers == given.newcomers
            assert got.outputs == given.outputs
            if newcomers:
                assert np.array_equal(got.newcomer_LTK, given.newcomer_LTK)
            else:
                assert got.newcomer_LTK is None


def moved(world: Any, one: Any, text: Any, rerouting: Any) -> tuple[Seen, float]:
    """Replay the text on one rank with choices decided before."""
    host = LocalHost(2) if world is None else ProcessHost(world.group, world.device)
    result = replay(
        "local" if world is None else "distributed",
        "real",
        **one.options,
        weights=bundled.tiny_moe_weights(),
        token_ids=text.token_ids,
        seq_ids=text.seq_ids,
        host=host,
        rerouting=rerouting,
    )
    assert result.ids_agreeing is not None
    return Seen.of(result), result.ids_agreeing


@pytest.mark.parametrize("traffic", ["dedup_gpu", "direct"])
def test_decided_choices_move_between_ranks_as_here(world: Any, traffic: str) -> None:
    """Law: biases, newcomers and limits: distributed = local = evaluator, all exact."""
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    one = job(trace, 2, traffic, "even", "placed")
    rows = one.part.row_T
    assert trace.token_id_T is not None
    text = Text(token_ids=trace.token_id_T[rows], seq_ids=trace.sequence_T[rows])
    (rerouting,), worst = reroute_text(
        bundled.tiny_moe_weights(), text, [text],
        numbers=trace.layer_numbers,
        balance=Balance(steps=3, newcomers=0.5),
        capacity_factor=1.5,
    )  # fmt: skip
    assert worst.shape == (3, 6)
    assert rerouting.dropped.pairs > 0
    assert rerouting.newcomer_LTK is not None
    assert rerouting.newcomer_LTK.any()
    part = replace(one.part, experts_LTK=rerouting.kept_LTK)
    workload = replace(one.instance.workloads[0], planning=part)
    instance = replace(one.instance, workloads=(workload,))
    changed = predicted(replace(one, instance=instance))
    here, agreeing = moved(None, one, text, rerouting)
    assert agreeing == 1.0
    for seen, agreed in [(here, agreeing), *world.run(moved, one, text, rerouting)]:
        assert seen.differs(changed) == []
        assert agreed == agreeing
        assert seen.error is not None
        assert 0 < seen.error <= OUTPUT_TOLERANCE
