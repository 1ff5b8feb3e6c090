"""What replicated context costs: by hand, and the same by the witness."""

import numpy as np
import pytest

from planner.layout import ParallelLayout
from planner.witness.context import context_bytes
from planner.workload.context import context_cost
from planner.workload.known_models import KNOWN_MODELS


def layout(gpus: int, ep: int, tp: int) -> ParallelLayout:
    """Return GPUs of one domain in groups of ``tp``."""
    return ParallelLayout(
        domain_G=np.zeros(gpus, dtype=np.int64),
        ep=ep,
        attention_groups=tuple(
            tuple(range(start, start + tp)) for start in range(0, gpus, tp)
        ),
    )


def degrees(of: ParallelLayout) -> dict[str, int]:
    """Return what the price depends on."""
    return {"groups": of.groups_of_a_set, "tp": of.tp}


def test_four_groups_hold_three_foreign_caches() -> None:
    """By hand: 16 layers · 2 · 32 heads · 128 · 2 bytes = 262,144 bytes a token."""
    free_G = np.asarray([10**12, 10**8, 10**12, 10**12])
    cost = context_cost(
        KNOWN_MODELS["paper-16x16"],
        **degrees(layout(4, 4, 1)),
        tokens=10,
        kv_tokens=1000,
        free_G=free_G,
    )
    assert (cost.groups, cost.token_bytes) == (4, 262_144)
    assert cost.memory_bytes == 3 * 1000 * 262_144
    assert cost.missing_bytes == 3 * 1000 * 262_144 - 10**8
    assert cost.transfer_bytes == 10 * 3 * 262_144


def test_a_lone_group_pays_nothing() -> None:
    """Where one group is the whole EP set, context stays where it is."""
    cost = context_cost(
        KNOWN_MODELS["deepseek-v3"],
        **degrees(layout(4, 2, 2)),
        tokens=10,
        kv_tokens=1000,
        free_G=np.full(4, 5),
    )
    assert (cost.groups, cost.memory_bytes, cost.transfer_bytes) == (1, 0, 0)
    assert cost.missing_bytes == 0


@pytest.mark.parametrize("model", ["paper-16x16", "deepseek-v3", "tiny-moe"])
@pytest.mark.parametrize("sizes", [(8, 8, 1), (8, 4, 2), (8, 2, 4)])
def test_the_witness_counts_the_same(model: str, sizes: tuple[int, int, int]) -> None:
    """Two readings of one rule, for sets smaller than a group too."""
    groups = layout(*sizes)
    cost = context_cost(
        KNOWN_MODELS[model],
        **degrees(groups),
        tokens=123,
        kv_tokens=4567,
        free_G=np.zeros(8, dtype=np.int64),
    )
    again = context_bytes(KNOWN_MODELS[model], groups, 123, 4567)
    assert {name: getattr(cost, name) for name in again} == dict(again)
