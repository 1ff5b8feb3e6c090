"""A decoder on two and four ranks equals the unsharded one, in gradients too."""

from typing import TYPE_CHECKING, Any

import pytest

from planner.executor.model.config import GroupedDims, LatentDims
from planner.executor.parallel.spec import ParallelSpec

pytest.importorskip("torch")

from tests.unit.executor.parallel import jobs  # noqa: E402

if TYPE_CHECKING:
    from planner.executor.world.standing import StandingWorld

pytestmark = pytest.mark.torch
KINDS: dict[str, Any] = {
    "multi-head": GroupedDims(heads=4, kv_heads=4, head_dim=8),
    "grouped": GroupedDims(heads=8, kv_heads=2, head_dim=4),
    "multi-query": GroupedDims(heads=4, kv_heads=1, head_dim=4),
    "latent": LatentDims(
        heads=4,
        q_lora_rank=7,
        kv_lora_rank=8,
        rope_head_dim=6,
        head_dim=3,
        v_head_dim=4,
    ),
}
SPECS = [
    ParallelSpec(tp=2),
    ParallelSpec(dp=2),
    ParallelSpec(pp=2),
    ParallelSpec(tp=2, etp=2),
    ParallelSpec(tp=4),
    ParallelSpec(dp=4),
    ParallelSpec(pp=4),
    ParallelSpec(tp=2, dp=2),
    ParallelSpec(tp=2, etp=2, dp=2),
    ParallelSpec(tp=4, etp=2),
    ParallelSpec(pp=2, dp=2),
    ParallelSpec(pp=2, tp=2, etp=2),
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_loss_and_gradients_are_the_unsharded_ones(
    worlds: "dict[int, StandingWorld]", kind: str, spec: ParallelSpec
) -> None:
    """Law: dividing a model changes nothing but rounding."""
    found = worlds[spec.ranks].run(
        jobs.trained_once, KINDS[kind], spec, "dedup_gpu", max(3, spec.pp)
    )
    worst = {name: max(f.get(name, 0.0) for f in found) for f in found for name in f}
    assert {name: error for name, error in worst.items() if error > 1e-5} == {}
    assert {"outputs", "loss"} <= set(worst)
