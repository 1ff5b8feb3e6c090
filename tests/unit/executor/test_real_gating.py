"""Real gating: a model's own router decides, and placing changes nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.errors import TraceError
from planner.executor.counter import count
from planner.executor.gating.rerouting import Rerouting
from planner.executor.model.tiny import TinyMoESpec
from planner.executor.result import Moved
from planner.plan import PlacementPlan
from planner.workload.parts import TokenPart
from tests.unit.executor.placed import layout_of, part_of, random_slots
from tests.unit.executor.test_replay import SPEC

torch = pytest.importorskip("torch")

from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.moe import at_once  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.text.reading import Reader, biased  # noqa: E402
from planner.executor.text.run import replay_text, sequence_batches  # noqa: E402

pytestmark = pytest.mark.torch
DIMENSIONS = TinyMoESpec(
    vocab=50, context=32, hidden=16, layers=3, heads=2, experts=8, top_k=3,
    expert_ffn=4, shared_ffn=8, dense_ffn=12,
)  # fmt: skip


class Text:
    """Sequences of differing lengths, their rows interleaved, routed one by one."""

    def __init__(self) -> None:
        torch.manual_seed(11)
        self.model = Decoder(DIMENSIONS.config).eval()
        rng = np.random.default_rng(12)
        lengths = [1, 7, 7, 30, 12, 3]
        rows = np.repeat(np.arange(6), lengths)
        self.seq_ids = rng.permutation(rows) * 10
        self.token_ids = rng.integers(50, size=rows.size)
        experts = np.full((2, rows.size, 3), -1)
        for sequence in np.unique(self.seq_ids):
            where = np.flatnonzero(self.seq_ids == sequence)
            experts[:, where] = self._chosen(self.token_ids[where])
        self.part: TokenPart = part_of(experts, 4, rng)
        slots = np.stack([random_slots(8, 4, 4, rng) for _ in range(2)])
        self.plan = PlacementPlan(layer_numbers=(1, 2), slots_LGJ=slots)

    def _chosen(self, tokens: Any) -> Any:
        found: list[Any] = []
        for layer in self.model.moe.values():

            def note(x: Any, ids: Any, gates: Any, layer: Any = layer) -> Any:
                found.append(ids.numpy())
                return layer.combine_local(x, ids, gates)

            layer.routed = at_once(note)
        with torch.no_grad():
            self.model(torch.from_numpy(tokens)[None])
        for layer in self.model.moe.values():
            layer.compute_here()
        return np.stack(found)

    def replay(self, traffic: str = "copies", **changes: Any) -> Moved:
        placement = Placement(
            plan=changes.pop("plan", self.plan),
            layout=layout_of([0, 0, 1, 1]),
            traffic=traffic,
            selection="nearest",
            endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
        )
        options = {"token_ids": self.token_ids, "seq_ids": self.seq_ids, **changes}
        part = options.pop("part", self.part)
        moved: Moved = replay_text(
            LocalHost(4), placement, part, model=self.model, model_spec=SPEC, **options
        )
        return moved


@pytest.fixture(scope="module")
def text() -> Text:
    return Text()


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain", "direct"])
def test_placed_logits_are_those_of_the_unsharded_model(
    text: Text, traffic: str
) -> None:
    """Law: real text, real routing, and the placement is invisible in the logits."""
    moved = text.replay(traffic)
    assert moved.outputs is not None
    assert moved.outputs.error_L.shape == (2,)
    assert 0 < moved.outputs.max_relative_error <= 1e-5
    assert moved.ids_agreeing == 1.0


def test_counts_follow_the_router_and_not_the_trace(text: Text) -> None:
    """Law: a trace with other ids changes the agreement, not what moves."""
    altered = text.part.experts_LTK.copy()
    altered[0, :, 0] = (altered[0, :, 0] + 1) % 8
    moved = text.replay(part=replace(text.part, experts_LTK=altered))
    assert moved.ids_agreeing is not None
    assert 0.5 < moved.ids_agreeing < 1.0
    forced = count(
        text.plan,
        text.part,
        layout=layout_of([0, 0, 1, 1]),
        model_spec=SPEC,
        traffic="copies",
        selection="nearest",
        endpoint="local_nic",
    )
    assert np.array_equal(moved.dispatch_LGG, forced.dispatch_LGG)


def test_the_model_is_left_as_it_was(text: Text) -> None:
    """Law: after a replay the model computes its experts itself again."""
    text.replay()
    for layer in text.model.moe.values():
        assert layer.routed.__wrapped__ == layer.combine_local


def test_a_plan_of_other_layers_is_refused(text: Text) -> None:
    """Law: real gating needs the model of the plan."""
    other = replace(text.plan, layer_numbers=(0, 1))
    with pytest.raises(TraceError, match="forced"):
        text.replay(plan=other)


def test_a_token_outside_the_vocabulary_is_refused(text: Text) -> None:
    """Law: the trace's text must be the model's."""
    with pytest.raises(TraceError, match="token_id"):
        text.replay(token_ids=text.token_ids + 40)


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain", "direct"])
@pytest.mark.parametrize(("factor", "newcomers"), [(None, 1.0), (1.0, 1.0), (1.0, 0.5)])
def test_what_was_decided_before_is_what_moves(
    text: Text, traffic: str, factor: float | None, newcomers: float
) -> None:
    """Law: with biases and limits, placed = unsharded, and counts are the new ids'."""
    bias = np.random.default_rng(5).normal(0, 0.2, (2, 8))
    batches = list(sequence_batches(text.seq_ids))
    with torch.no_grad():
        reader = Reader(text.model, batches, text.token_ids, newcomers)
        before, rerouting = reader.compared(bias, factor)
    assert np.array_equal(before, text.part.experts_LTK)
    assert not np.array_equal(before, rerouting.wanted_LTK)
    assert (rerouting.dropped.pairs > 0) == (factor is not None)
    with biased(reader.layers, bias):
        moved = text.replay(
            traffic,
            part=replace(text.part, experts_LTK=rerouting.kept_LTK),
            rerouting=rerouting,
        )
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5
    assert moved.ids_agreeing == 1.0
    counted = count(
        text.plan,
        replace(text.part, experts_LTK=rerouting.kept_LTK),
        layout=layout_of([0, 0, 1, 1]),
        model_spec=SPEC,
        traffic=traffic,
        selection="nearest",
        endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
    )
    assert np.array_equal(moved.dispatch_LGG, counted.dispatch_LGG)
    assert np.array_equal(moved.combine_LGG, counted.combine_LGG)
    assert moved.gpu_pairs_LG.sum() == (rerouting.kept_LTK >= 0).sum()
    assert not np.array_equal(moved.dispatch_LGG, text.replay(traffic).dispatch_LGG)


def test_a_decision_holds_where_the_router_would_choose_otherwise(text: Text) -> None:
    """Law: experts decided on are computed with their own gates, here and there."""
    other = np.random.default_rng(6).permuted(
        np.tile(np.arange(8), (2, text.token_ids.size, 1)), axis=2
    )[:, :, :3].astype(np.int16)  # fmt: skip
    moved = text.replay(
        part=replace(text.part, experts_LTK=other),
        rerouting=Rerouting(wanted_LTK=other, kept_LTK=other),
    )
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5
    assert moved.ids_agreeing is not None
    assert 0.2 < moved.ids_agreeing < 0.6
