"""Four ways to count, one count: evaluator, counter, virtual ranks, processes.

The evaluator predicts, the counter follows the rules token by token, and the two
tensor back ends count rows of tensors as they move. On random clusters, plans and
tokens they agree on every ordered GPU pair and on every link, in both legs.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.executor.result import OUTPUT_TOLERANCE
from planner.plan import PlacementPlan
from planner.traffic.base import TRAFFIC
from tests.instances import instance
from tests.unit.executor.placed import random_slots
from tests.unit.executor.replays import (
    PROGRAMS,
    Job,
    Seen,
    counted,
    moved_between,
    moved_here,
    predicted,
)

torch = pytest.importorskip("torch")

from planner.executor.world.nursery import PRELOAD, Nursery  # noqa: E402
from planner.executor.world.standing import StandingWorld  # noqa: E402

pytestmark = pytest.mark.torch
DOMAINS = {
    2: [[2], [1, 1]],
    4: [[4], [2, 2], [1, 3], [2, 1, 1]],
    8: [[4, 4], [2, 2, 2, 2], [3, 5], [1, 2, 5]],
}
ALONE = {2: (2, 1), 4: (2, 2), 8: (4, 2)}
"""Experts and layers where every GPU holds one expert of all layers."""
EXAMPLES = {2: 210, 4: 70, 8: 20}
"""300 in all, fewer where more processes must take part."""


def single(experts: int, layers: int, rng: Any) -> np.ndarray[Any, Any]:
    """One expert per GPU altogether, layers on disjoint GPUs."""
    slots = np.full((layers, experts * layers, 1), -1, dtype=np.int16)
    order = rng.permutation(experts * layers)
    for place, gpu in enumerate(order):
        slots[place // experts, gpu, 0] = place % experts
    return slots


@st.composite
def jobs(draw: st.DrawFn, gpus: int) -> Job:
    """A cluster of some GPUs, a regime, a plan of it, tokens, and the rules."""
    traffic = draw(st.sampled_from(TRAFFIC.names()))
    endpoint = draw(st.sampled_from(TRAFFIC.get(traffic).endpoints))
    selection = draw(st.sampled_from(["nearest", "even", "weighted"]))
    regime = draw(st.sampled_from(["placed", "replicated", "single"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    domains = draw(st.sampled_from(DOMAINS[gpus]))
    even = all(gpus // 2 in np.cumsum(sizes) for sizes in [domains])
    ep = gpus // 2 if even and regime != "single" and draw(st.booleans()) else gpus
    experts, layers = (6, 2) if regime != "single" else ALONE[gpus]
    if regime == "single":
        slots = single(experts, layers, rng)
    else:
        least = -(-experts // ep)
        width = least if regime == "placed" else min(experts, least + 2)
        slots = np.stack([random_slots(experts, ep, width, rng) for _ in range(layers)])
    drawn = instance(
        domains,
        experts=experts,
        slots=slots.shape[2],
        traffic=traffic,
        endpoint=endpoint,
        selection=selection,
        layers=layers,
        top_k=draw(st.integers(1, min(3, experts))),
        tokens=draw(st.integers(0, 40)),
        ep=ep,
        seed=int(rng.integers(2**31)),
    )
    split = {}
    for layer, expert in np.ndindex(layers, experts):
        copies = int((slots[layer] == expert).sum())
        weights = rng.integers(0, 4, copies)
        weights[rng.integers(copies)] += 1
        key = "*" if rng.random() < 0.5 else str(rng.integers(gpus))
        split[layer, expert] = {key: tuple(int(w) for w in weights)}
    plan = PlacementPlan(
        layer_numbers=tuple(range(layers)), slots_LGJ=slots, split=split
    )
    return Job(instance=drawn, plan=plan)


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, StandingWorld]]:
    """Worlds of 2, 4 and 8 gloo ranks."""
    nursery = Nursery((*PRELOAD, *PROGRAMS))
    found = {size: StandingWorld(size, nursery=nursery) for size in DOMAINS}
    yield found
    for world in found.values():
        world.close()
    nursery.close()


@pytest.mark.slow
@pytest.mark.parametrize("gpus", sorted(DOMAINS))
def test_all_back_ends_count_what_the_evaluator_predicts(
    worlds: dict[int, StandingWorld], gpus: int
) -> None:
    """Law: predicted = counted = moved between virtual ranks = between processes."""

    @given(job=jobs(gpus))
    @settings(
        max_examples=EXAMPLES[gpus],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def agree(job: Job) -> None:
        wanted = predicted(job)
        found = {"counter": counted(job), "local": moved_here(job)}
        by_rank = worlds[gpus].run(moved_between, job)
        found |= {f"rank {rank}": seen for rank, seen in enumerate(by_rank)}
        assert {name: seen.differs(wanted) for name, seen in found.items()} == {
            name: [] for name in found
        }
        for name in set(found) - {"counter"}:
            assert found[name].error <= OUTPUT_TOLERANCE, name

    agree()


def test_a_wrong_count_would_be_noticed() -> None:
    """Law: the comparison sees one transfer too many and one link numerator."""
    seen = Seen(np.zeros((1, 2, 2)), np.zeros(1), np.zeros(1), np.zeros(3), None)
    more = seen.dispatch.copy()
    more[0, 0, 1] += 1
    assert seen.differs(replace(seen, dispatch=more)) == ["dispatch"]
    assert seen.differs(replace(seen, numerators=np.ones(3))) == ["numerators"]
