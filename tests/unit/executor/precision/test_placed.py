"""Placed experts in bf16 and fp8: what travels, what is held, what comes out."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from planner.executor.replay import replay
from planner.plan import PlacementPlan
from planner.topology.paths import build_routes
from planner.workload.presets import load_model
from tests.instances import cluster
from tests.unit.executor.placed import (
    layout_of,
    outputs_by_hand,
    part_of,
    random_experts,
    random_slots,
)
from tests.unit.executor.precision.oracle import quantised
from tests.unit.executor.test_real_gating import SPEC, Text

torch = pytest.importorskip("torch")

from planner.errors import UsageError  # noqa: E402
from planner.executor.counter import count  # noqa: E402
from planner.executor.direct import Standing  # noqa: E402
from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.precision.base import Precision, WireFormat  # noqa: E402
from planner.executor.precision.fp8 import BLOCK, Fp8  # noqa: E402
from planner.executor.precision.fp32 import Fp32  # noqa: E402
from planner.executor.precision.named import BF16, FP8, FP32  # noqa: E402
from planner.executor.precision.tolerance import TOLERANCES  # noqa: E402
from planner.executor.stepping import finish  # noqa: E402
from planner.executor.text.run import replay_text  # noqa: E402
from planner.executor.world.nursery import Nursery  # noqa: E402
from planner.executor.world.standing import StandingWorld  # noqa: E402
from planner.topology.schema import load_topology  # noqa: E402
from tests.unit.executor.precision import jobs  # noqa: E402

pytestmark = pytest.mark.torch
WAYS = [
    ("copies", "local_nic"),
    ("copies", "dest_forward"),
    ("copies", "pxn"),
    ("dedup_gpu", "local_nic"),
    ("dedup_gpu", "dest_forward"),
    ("dedup_domain", "dest_forward"),
]
EXACT_ANSWERS = Precision(
    name="fp8 with exact answers",
    wire=WireFormat(dispatch=Fp8(), combine=Fp32()),
    weights=Fp8(BLOCK),
)
HIDDEN, FFN, EXPERTS, TOKENS = 150, 70, 9, 40


class Layer:
    """One layer of random weights and tokens, wider than one block."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.w_in = rng.normal(size=(EXPERTS, HIDDEN, 2 * FFN)) * HIDDEN**-0.5
        self.w_out = rng.normal(size=(EXPERTS, FFN, HIDDEN)) * FFN**-0.5
        self.x = rng.normal(size=(TOKENS, HIDDEN)).astype(np.float32)
        self.gates = rng.random((TOKENS, 4)).astype(np.float32)
        self.layout = layout_of([0, 0, 0, 1, 1])
        self.slots = random_slots(EXPERTS, 5, 5, rng)
        self.part = part_of(random_experts(1, TOKENS, 4, EXPERTS, rng), 5, rng)

    def placement(self, traffic: str, endpoint: str, precision: Precision) -> Placement:
        return Placement(
            plan=PlacementPlan(layer_numbers=(0,), slots_LGJ=self.slots[None]),
            layout=self.layout,
            traffic=traffic,
            selection="nearest",
            endpoint=endpoint,
            precision=precision,
        )

    @property
    def weights(self) -> tuple[Any, Any]:
        return (
            torch.from_numpy(self.w_in.astype(np.float32)),
            torch.from_numpy(self.w_out.astype(np.float32)),
        )

    def inputs(self, placement: Placement) -> tuple[Any, Any, Any, Any]:
        """Hidden states, gates, slots and homes."""
        part = self.part
        columns = (part.source_T, part.rank_T, part.ordinal_T)
        slots = placement.choice(0, LocalHost(5)).of(
            torch.from_numpy(part.experts_LTK[0].astype(np.int64)),
            *map(torch.from_numpy, columns),
        )
        x, gates = torch.from_numpy(self.x), torch.from_numpy(self.gates)
        return x, gates, slots, torch.from_numpy(part.source_T)

    def outputs(self, traffic: str, endpoint: str, precision: Precision) -> Any:
        placement = self.placement(traffic, endpoint, precision)
        experts = placement.experts(0, self.weights, swiglu, LocalHost(5))
        return finish(experts.steps(*self.inputs(placement))).numpy()

    @cached_property
    def in_fp8(self) -> Any:
        """Outputs computed naively from naively quantised tokens and weights."""
        return outputs_by_hand(
            quantised(self.x, 1),
            self.gates,
            self.part.experts_LTK[0],
            np.stack([quantised(w.astype(np.float32), 128) for w in self.w_in]),
            np.stack([quantised(w.astype(np.float32), 128) for w in self.w_out]),
        )


@pytest.fixture(scope="module")
def layer() -> Layer:
    return Layer()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_experts_see_quantised_tokens_and_weights(
    layer: Layer, traffic: str, endpoint: str
) -> None:
    """Law: relays change nothing; with exact answers outputs are the oracle's."""
    found = layer.outputs(traffic, endpoint, EXACT_ANSWERS)
    wanted = layer.in_fp8
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(("traffic", "endpoint"), WAYS)
def test_answers_are_rounded_to_bf16_and_added_in_float32(
    layer: Layer, traffic: str, endpoint: str
) -> None:
    """Law: each of at most K answers is off by 2^-9 of itself, a relay's once more."""
    found = layer.outputs(traffic, endpoint, FP8)
    exact = layer.outputs(traffic, endpoint, EXACT_ANSWERS)
    largest = np.abs(exact).max() * 4
    assert 0 < np.abs(found - exact).max() <= 2 * 2**-9 * largest


@pytest.mark.parametrize("precision", [BF16, FP8])
def test_what_is_sent_and_answered_has_the_formats_types(
    layer: Layer, precision: Precision
) -> None:
    """Law: rows on the wire are in the dispatch format out, in bf16 back."""
    placement = layer.placement("copies", "local_nic", precision)
    experts = placement.experts(0, layer.weights, swiglu, LocalHost(5))
    out: list[Any] = []
    answered: list[Any] = []
    send = experts.wire.send

    def watched(columns: Any, *ranks: Any) -> Any:
        out.extend(rows.dtype for rows in columns)
        shipment = yield from send(columns, *ranks)
        back = shipment.back

        def noted(answers: Any) -> Any:
            answered.extend(rows.dtype for rows in answers)
            return (yield from back(answers))

        object.__setattr__(shipment, "back", noted)
        return shipment

    experts.wire.send = watched
    finish(experts.steps(*layer.inputs(placement)))
    payload = [torch.bfloat16] if precision is BF16 else [torch.float8_e4m3fn]
    scales = [] if precision is BF16 else [torch.float32]
    assert out == [*payload, *scales, torch.int64]
    assert answered == [torch.bfloat16]


def test_slots_hold_the_bytes_of_their_format(layer: Layer) -> None:
    """By hand: 150 x 140 and 70 x 150 values; 2 x 2 and 1 x 2 blocks of scales."""
    values = 150 * 140 + 70 * 150
    for precision, wanted in (
        (FP32, 4 * values),
        (BF16, 2 * values),
        (FP8, values + 4 * (4 + 2)),
    ):
        placement = layer.placement("copies", "local_nic", precision)
        bank = placement.experts(0, layer.weights, swiglu, LocalHost(5)).bank
        assert bank.bytes_G.tolist() == [5 * wanted] * 5
        assert bank.held_G.tolist() == (layer.slots >= 0).sum(axis=1).tolist()


def test_tokens_that_walk_carry_the_format_too(layer: Layer) -> None:
    """Law: under direct experts see quantised tokens as well."""
    placement = layer.placement("direct", "local_nic", EXACT_ANSWERS)
    experts = placement.direct(0, layer.weights, swiglu, LocalHost(5))
    x, gates, slots, home = layer.inputs(placement)
    standing = Standing(x_NH=x, token_N=torch.arange(TOKENS), rank_N=home)
    moved, y = finish(experts.steps(standing, gates, slots))
    wanted = layer.in_fp8[moved.token_N.numpy()]
    assert np.abs(y.numpy() - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_gradients_through_bf16_are_those_of_float32(layer: Layer) -> None:
    """Law: within 2e-2 of the greatest, for tokens and gates."""
    found = []
    for precision in (FP32, BF16):
        placement = layer.placement("dedup_domain", "dest_forward", precision)
        experts = placement.experts(0, layer.weights, swiglu, LocalHost(5))
        x, gates, slots, home = layer.inputs(placement)
        x.requires_grad_(True)
        gates.requires_grad_(True)
        finish(experts.steps(x, gates, slots, home)).square().sum().backward()
        found.append((x.grad, gates.grad))
    for exact, rounded in zip(*found, strict=True):
        assert 0 < (exact - rounded).abs().max() <= 2e-2 * exact.abs().max()


@pytest.fixture(scope="module")
def options() -> dict[str, Any]:
    """A forced replay of three layers on two domains of two GPUs."""
    rng = np.random.default_rng(7)
    topology = load_topology(cluster([2, 2]))
    model = load_model("tiny-moe")
    slots = np.stack([random_slots(12, 4, 4, rng) for _ in range(3)])
    return {
        "plan": PlacementPlan(layer_numbers=(1, 2, 3), slots_LGJ=slots),
        "part": part_of(random_experts(3, 200, 3, 12, rng), 4, rng),
        "layout": layout_of([0, 0, 1, 1]),
        "model_spec": model,
        "selection": "even",
        "message_bytes": (1, 1),
        "routes": build_routes(topology),
    }


def way(traffic: str) -> dict[str, str]:
    endpoint = "dest_forward" if traffic == "dedup_domain" else "local_nic"
    return {"traffic": traffic, "endpoint": endpoint}


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain", "direct"])
def test_counts_are_the_same_in_every_precision(
    options: dict[str, Any], traffic: str, precision: str
) -> None:
    """Law: what moves does not depend on what it is written in; errors do."""
    counted = replay("counter", "forced", **options, **way(traffic))
    moved = replay("local", "forced", **options, **way(traffic), precision=precision)
    assert np.array_equal(moved.numerators_L2A, counted.numerators_L2A)
    assert np.array_equal(moved.moved.gpu_pairs_LG, counted.moved.gpu_pairs_LG)
    outputs = moved.moved.outputs
    assert outputs is not None
    assert TOLERANCES["fp32"].outputs < outputs.final_error
    assert outputs.final_error <= TOLERANCES[precision].outputs
    assert outputs.layer_error <= TOLERANCES[precision].layers


def test_a_codec_that_loses_its_scales_is_noticed(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: the tolerance of fp8 does not hide a wrong format."""
    monkeypatch.setattr(Fp8, "decode", lambda self, columns: columns[0].float())
    moved = replay("local", "forced", **options, **way("copies"), precision="fp8")
    assert moved.moved.outputs is not None
    assert moved.moved.outputs.final_error > TOLERANCES["fp8"].outputs
    assert moved.moved.outputs.layer_error > TOLERANCES["fp8"].layers


def test_the_counter_has_no_precision(options: dict[str, Any]) -> None:
    """Law: what is not computed is not claimed."""
    with pytest.raises(UsageError, match="counter"):
        replay("counter", "forced", **options, **way("copies"), precision="bf16")


@pytest.mark.parametrize("precision", [BF16, FP8])
@pytest.mark.parametrize("traffic", ["copies", "dedup_domain", "direct"])
def test_drifting_states_do_not_move_other_rows(
    text: Text, traffic: str, precision: Precision
) -> None:
    """Law: under real gating tokens go where the unsharded model sends them."""
    rules = way(traffic)
    layout = layout_of([0, 0, 1, 1])
    placement = Placement(
        plan=text.plan, layout=layout, selection="nearest", precision=precision, **rules
    )
    moved = replay_text(
        LocalHost(4),
        placement,
        text.part,
        model=text.model,
        model_spec=SPEC,
        token_ids=text.token_ids,
        seq_ids=text.seq_ids,
    )
    forced = count(
        text.plan,
        text.part,
        layout=layout,
        model_spec=SPEC,
        selection="nearest",
        **rules,
    )
    assert np.array_equal(moved.dispatch_LGG, forced.dispatch_LGG)
    assert moved.outputs is not None
    assert 1e-5 < moved.outputs.final_error <= TOLERANCES[precision.name].outputs
    assert moved.ids_agreeing is not None
    assert 0.9 < moved.ids_agreeing <= 1


@pytest.fixture(scope="module")
def text() -> Text:
    return Text()


@pytest.fixture(scope="module")
def four(nursery: Nursery) -> Iterator[StandingWorld]:
    with StandingWorld(4, nursery=nursery) as world:
        yield world


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("traffic", ["dedup_domain", "direct"])
def test_bytes_travel_between_processes(
    options: dict[str, Any], four: StandingWorld, traffic: str, precision: str
) -> None:
    """Law: every rank finds the counts and, but for the order of sums, the errors.

    Those of layers are held against the mean of a rank's own tokens.
    """
    whole = {**options, **way(traffic), "precision": precision}
    here = replay("local", "forced", **whole)
    assert here.moved.outputs is not None
    for there in four.run(jobs.replayed, whole):
        assert np.array_equal(there.numerators_L2A, here.numerators_L2A)
        assert there.moved.outputs.final_error == pytest.approx(
            here.moved.outputs.final_error, rel=0.2
        )
        assert there.moved.outputs.layer_error <= there.tolerance.layers


def test_only_weights_that_are_values_can_be_trained(layer: Layer) -> None:
    """Law: fp8 weights are for inference."""
    for precision, fits in ((FP32, True), (BF16, True), (FP8, False)):
        placement = layer.placement("copies", "local_nic", precision)
        bank = placement.experts(0, layer.weights, swiglu, LocalHost(5)).bank
        if fits:
            assert [rows.requires_grad for rows in bank.trainable()] == [True, True]
            continue
        with pytest.raises(UsageError, match="fp8"):
            bank.trainable()
