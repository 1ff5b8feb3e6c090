"""Any known model's mechanisms, placed: the placement stays invisible."""

from typing import Any

import numpy as np
import pytest

from planner.executor.model.sized import decoder_config
from planner.executor.result import Moved
from planner.plan import PlacementPlan
from planner.workload.presets import load_model
from tests.unit.executor.placed import layout_of, part_of, random_slots

torch = pytest.importorskip("torch")

from planner.executor.host import LocalHost  # noqa: E402
from planner.executor.model.decoder import Decoder  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.text.run import replay_text  # noqa: E402

pytestmark = pytest.mark.torch
MODELS = ["deepseek-v3", "deepseek-v2-lite", "mixtral-8x7b", "paper-16x16"]
LENGTHS = [1, 9, 4, 6]


def replayed(
    name: str, traffic: str, ids: Any = None, unrouted: tuple[int, ...] = ()
) -> tuple[Moved, Any]:
    """A text through a model at toy size on 4 GPUs; also its token ids."""
    spec = load_model(name)
    torch.manual_seed(4)
    config = decoder_config(
        spec, hidden=32, layers=5, vocab=40, context=16, unrouted_ids=unrouted
    )
    model, rng = Decoder(config).eval(), np.random.default_rng(9)
    seq_ids = rng.permutation(np.repeat(np.arange(len(LENGTHS)), LENGTHS))
    token_ids = rng.integers(40, size=seq_ids.size) if ids is None else ids
    layers, slots = len(config.moe_layers), -(-config.experts // 4) + 1
    recorded = np.full((layers, seq_ids.size, config.top_k), -1)
    placement = Placement(
        plan=PlacementPlan(
            layer_numbers=config.moe_layers,
            slots_LGJ=np.stack(
                [random_slots(config.experts, 4, slots, rng) for _ in range(layers)]
            ),
        ),
        layout=layout_of([0, 0, 1, 1]),
        traffic=traffic,
        selection="nearest",
        endpoint="dest_forward" if traffic == "dedup_domain" else "local_nic",
    )
    moved: Moved = replay_text(
        LocalHost(4),
        placement,
        part_of(recorded, 4, rng),
        model=model,
        model_spec=spec,
        token_ids=token_ids,
        seq_ids=seq_ids,
    )
    return moved, token_ids


@pytest.mark.parametrize("traffic", ["copies", "dedup_domain", "direct"])
@pytest.mark.parametrize("name", MODELS)
def test_placing_any_model_changes_nothing(name: str, traffic: str) -> None:
    """Law: latent or grouped attention, any gate, GELU or SwiGLU: the same logits."""
    moved, _ = replayed(name, traffic)
    assert moved.outputs is not None
    assert 0 < moved.outputs.max_relative_error <= 1e-5


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "direct"])
def test_ids_that_are_not_routed_carry_no_traffic(traffic: str) -> None:
    """Law: special ids are attended to and sent to no expert."""
    moved, token_ids = replayed("mixtral-8x7b", traffic)
    everything = int(moved.gpu_pairs_LG.sum())
    assert everything == 5 * 2 * token_ids.size
    special = np.where(np.arange(token_ids.size) % 3, token_ids % 38, 39)
    moved, _ = replayed("mixtral-8x7b", traffic, special, unrouted=(39, 38))
    routed = int((special < 38).sum())
    assert 0 < routed < token_ids.size
    assert int(moved.gpu_pairs_LG.sum()) == 5 * 2 * routed
    assert moved.outputs is not None
    assert moved.outputs.max_relative_error <= 1e-5
    moved, _ = replayed("mixtral-8x7b", traffic, special * 0 + 39, unrouted=(39,))
    assert int(moved.gpu_pairs_LG.sum() + moved.dispatch_LGG.sum()) == 0
