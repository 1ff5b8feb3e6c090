"""Every tensor of a replay is made on the host's device, whichever that is."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest

from planner.executor.counter import count
from planner.executor.gating.balancing import Balance
from planner.executor.model.sized import decoder_config
from planner.plan import PlacementPlan
from planner.workload.presets import load_model
from tests.unit.executor.placed import (
    layout_of,
    part_of,
    random_experts,
    random_slots,
)
from tests.unit.executor.test_replay import SPEC

torch = pytest.importorskip("torch")

from planner.executor.forced import replay_forced  # noqa: E402
from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.model.generate import generate  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.stepping import finish  # noqa: E402
from planner.executor.text.reading import Reader, balanced  # noqa: E402
from planner.executor.text.run import replay_text, sequence_batches  # noqa: E402
from tests.unit.executor.elsewhere import ELSEWHERE, elsewhere  # noqa: E402

pytestmark = pytest.mark.torch
MODES = ["copies", "dedup_gpu", "dedup_domain", "direct"]
ENDPOINTS = {"dedup_domain": "dest_forward", "dedup_gpu": "pxn"}
LENGTHS = [3, 9, 4]


def placement_of(plan: PlacementPlan, traffic: str, selection: str) -> Placement:
    return Placement(
        plan=plan,
        layout=layout_of([0, 0, 1, 1]),
        traffic=traffic,
        selection=selection,
        endpoint=ENDPOINTS.get(traffic, "local_nic"),
    )


def random_plan(layers: int, experts: int, rng: Any, first: int = 1) -> PlacementPlan:
    slots = -(-experts // 4) + 1
    return PlacementPlan(
        layer_numbers=tuple(range(first, first + layers)),
        slots_LGJ=np.stack(
            [random_slots(experts, 4, slots, rng) for _ in range(layers)]
        ),
    )


def test_tensors_elsewhere_behave_as_on_a_gpu() -> None:
    """Law: they compute, and meet neither NumPy nor tensors of the CPU."""
    here = torch.arange(5)
    with elsewhere() as there:
        found = torch.arange(5, device=there)
        assert found.device == ELSEWHERE
        for mixed in (
            lambda: found + here,
            lambda: found[here],
            lambda: here[found],
            lambda: torch.where(found > 1, found, here),
            lambda: found.numpy(),
        ):
            with pytest.raises(RuntimeError):
                mixed()
        found[2] = 7
        assert (found + 1).cpu().numpy().tolist() == [1, 2, 8, 4, 5]
        assert torch.nonzero(found > 6).device == ELSEWHERE
        assert torch.tensor([1, 2], device=there).sum().item() == 3


@pytest.mark.parametrize("traffic", MODES)
@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
def test_forced_routing_runs_on_any_device(traffic: str, selection: str) -> None:
    """Law: the counts and outputs of a replay do not depend on the device."""
    rng = np.random.default_rng(3)
    plan = random_plan(2, SPEC.experts, rng)
    part = part_of(random_experts(2, 60, SPEC.top_k, SPEC.experts, rng), 4, rng)
    placement = placement_of(plan, traffic, selection)
    counted = count(
        plan,
        part,
        layout=placement.layout,
        model_spec=SPEC,
        traffic=traffic,
        selection=selection,
        endpoint=placement.endpoint,
    )
    with elsewhere() as there:
        moved = replay_forced(LocalHost(4, there), placement, part, model_spec=SPEC)
    assert np.array_equal(moved.dispatch_LGG, counted.dispatch_LGG)
    assert np.array_equal(moved.gpu_pairs_LG, counted.gpu_pairs_LG)
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5


@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x7b", "paper-16x16"])
@pytest.mark.parametrize("traffic", MODES)
def test_real_routing_runs_on_any_device(name: str, traffic: str) -> None:
    """Law: a model reads its text and routes it, wherever its tensors are."""
    model, seq_ids, token_ids, rng = a_text(name)
    moe = model.config.moe_layers
    recorded = np.full((len(moe), seq_ids.size, model.config.top_k), -1)
    plan = random_plan(len(moe), model.config.experts, rng, moe[0])
    options: dict[str, Any] = {
        "model_spec": load_model(name), "token_ids": token_ids, "seq_ids": seq_ids,
    }  # fmt: skip
    placement = placement_of(plan, traffic, "even")
    part = part_of(recorded, 4, rng)
    here = replay_text(LocalHost(4), placement, part, model=model, **options)
    with elsewhere() as there:
        host = LocalHost(4, there)
        far = replay_text(host, placement, part, model=model.to(there), **options)
    assert np.array_equal(far.dispatch_LGG, here.dispatch_LGG)
    assert far.outputs is not None
    assert 0 < far.outputs.max_relative_error <= 1e-5


@torch.no_grad()
def test_changed_choices_run_on_any_device() -> None:
    """Law: biases are found, and experts limited, wherever the model is."""
    model, seq_ids, token_ids, rng = a_text("deepseek-v3")
    moe = model.config.moe_layers
    balance = Balance(steps=3, step=0.5, window=1)
    batches = list(sequence_batches(seq_ids))

    def decided(model: Decoder) -> Any:
        reader = Reader(model, batches, token_ids)
        bias_LE, _ = balanced(reader, balance)
        return bias_LE, reader.compared(bias_LE, 1.0)[1]

    bias_LE, here = decided(model)
    assert (here.kept_LTK < 0).any()
    with elsewhere() as there:
        bias_there_LE, far = decided(deepcopy(model).to(there))
        assert np.allclose(bias_there_LE, bias_LE)
        assert np.array_equal(far.kept_LTK, here.kept_LTK)
        moved = replay_text(
            LocalHost(4, there),
            placement_of(
                random_plan(len(moe), model.config.experts, rng, moe[0]),
                "dedup_domain",
                "nearest",
            ),
            part_of(far.kept_LTK, 4, rng),
            model=model.to(there),
            model_spec=load_model("deepseek-v3"),
            token_ids=token_ids,
            seq_ids=seq_ids,
            rerouting=far,
        )
    assert moved.outputs is not None
    assert moved.outputs.max_relative_error <= 1e-5


@pytest.mark.parametrize("name", ["deepseek-v3", "mixtral-8x7b"])
def test_decoding_runs_on_any_device(name: str) -> None:
    """Law: a cache grows, and tokens follow, wherever the model is."""
    model, *_ = a_text(name)
    prompts = torch.randint(40, (2, 5))
    real = torch.ones_like(prompts, dtype=torch.bool)
    real[0, :2] = False
    here = finish(generate(model, prompts, real, 4))
    with elsewhere() as there:
        model.to(there)
        far = finish(generate(model, prompts.to(there), real.to(there), 4))
        assert far.tolist() == here.tolist()


@pytest.mark.parametrize("traffic", MODES[:3])
def test_gradients_flow_on_any_device(traffic: str) -> None:
    """Law: the backward pass of placed experts is that of the CPU."""
    rng = np.random.default_rng(5)
    placement = placement_of(random_plan(1, 8, rng), traffic, "nearest")
    torch.manual_seed(2)
    w_in, w_out = torch.randn(8, 6, 8), torch.randn(8, 4, 6)
    x, gates = torch.randn(20, 6), torch.rand(20, 3)
    ids = torch.rand(20, 8).argsort(dim=1)[:, :3]
    ranks = torch.arange(20) % 4

    def gradients(device: Any) -> list[Any]:
        host = LocalHost(4, device)
        own = [t.clone().to(device).requires_grad_() for t in (x, gates)]
        placed = placement.experts(0, (w_in.to(device), w_out.to(device)), swiglu, host)
        at = ranks.to(device)
        slots = placement.choice(0, host).of(ids.to(device), at, at, at)
        finish(placed.steps(*own, slots, at)).square().sum().backward()
        return [t.grad.cpu() for t in own]

    here = gradients(torch.device("cpu"))
    with elsewhere() as there:
        far = gradients(there)
    for found, wanted in zip(far, here, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)


def a_text(name: str) -> tuple[Decoder, Any, Any, Any]:
    """A model at toy size, sequences and tokens of a text."""
    torch.manual_seed(4)
    config = decoder_config(
        load_model(name), hidden=32, layers=5, vocab=40, context=16, unrouted_ids=(3,)
    )
    rng = np.random.default_rng(9)
    seq_ids = rng.permutation(np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    return Decoder(config).eval(), seq_ids, rng.integers(40, size=seq_ids.size), rng
