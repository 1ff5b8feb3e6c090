"""Layers under ``direct`` start on partial batches, on disjoint and shared GPUs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.plan import PlacementPlan

torch = pytest.importorskip("torch")

from planner.executor import forced  # noqa: E402
from planner.executor.direct import PAUSES_OF_LAYER, Standing  # noqa: E402
from planner.executor.host import ProcessHost  # noqa: E402
from planner.executor.model.feed_forward import swiglu  # noqa: E402
from planner.executor.placement import Placement  # noqa: E402
from planner.executor.slots import Rows, SlotBank  # noqa: E402
from planner.executor.stepping import Steps  # noqa: E402
from planner.executor.world.standing import StandingWorld  # noqa: E402
from tests.instances import instance  # noqa: E402
from tests.unit.executor.replays import Job, moved_between, moved_here  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def two() -> Iterator[StandingWorld]:
    with StandingWorld(2) as world:
        yield world


def job(slots: list[Any]) -> Job:
    """Two layers of two experts on two GPUs, top-1, all tokens of the first GPU."""
    drawn = instance(
        [1, 1], experts=2, slots=2, traffic="direct", layers=2, top_k=1, tokens=60
    )
    part = drawn.planning
    home = np.zeros(60, dtype=np.int64)
    part = replace(
        part,
        source_T=home,
        rank_T=home,
        ordinal_T=np.arange(60),
        experts_LTK=np.abs(part.experts_LTK),
    )
    (load,) = drawn.workloads
    drawn = replace(drawn, workloads=(replace(load, planning=part),))
    plan = PlacementPlan(
        layer_numbers=(0, 1), slots_LGJ=np.asarray(slots, dtype=np.int16)
    )
    return Job(instance=drawn, plan=plan)


def order_of_work(world: Any, one: Job) -> list[tuple[int, int, int]]:
    """Layer, batch and rows of everything that a rank computes, in order."""
    log: list[tuple[int, int, int]] = []
    banks: list[SlotBank] = []
    batches: list[int] = []
    compute, through = SlotBank.compute, forced._ForcedRun._chained

    def noting(bank: SlotBank, rows: Rows) -> Any:
        if bank not in banks:
            banks.append(bank)
        log.append((banks.index(bank), batches[-1], len(rows.rank_N)))
        return compute(bank, rows)

    def following(run: Any, rows: Any) -> Steps[float]:
        number = int(rows[0]) // 15 if len(rows) else 0
        steps = through(run, rows)
        sent = None
        while True:
            batches.append(number)
            try:
                sent = steps.send(sent)
            except StopIteration as end:
                return end.value
            yield sent

    SlotBank.compute, forced._ForcedRun._chained = noting, following
    try:
        moved_between(world, one)
    finally:
        SlotBank.compute, forced._ForcedRun._chained = compute, through
    return log


DISJOINT = [[[0, 1], [-1, -1]], [[-1, -1], [0, 1]]]
SHARED = [[[0, 1], [0, 1]], [[1, 0], [1, 0]]]


def test_a_layer_starts_before_the_one_before_has_seen_all(two: StandingWorld) -> None:
    """Law: the second layer's GPU works on part 0 before the first's on the last."""
    first, second = two.run(order_of_work, job(DISJOINT))
    of_first = [entry[:2] for entry in first]
    assert of_first.index((1, 0)) < of_first.index((0, 3))
    assert [rows for layer, _, rows in first if layer == 1] == [0] * 4
    assert [rows for layer, _, rows in second if layer == 1] == [15] * 4


def test_counts_do_not_depend_on_the_parts(two: StandingWorld) -> None:
    """Law: cut up and pipelined, the same rows move; on shared GPUs too."""
    for slots in (DISJOINT, SHARED):
        one = job(slots)
        wanted = moved_here(one)
        for seen in two.run(moved_between, one):
            assert seen.differs(wanted) == []


def test_the_stagger_is_a_layer_long(two: StandingWorld) -> None:
    """Law: a batch pauses as often in a layer as the next one waits to begin."""
    pauses = two.run(pauses_of_a_layer, job(SHARED))
    assert pauses == [PAUSES_OF_LAYER] * 2


def pauses_of_a_layer(world: Any, one: Job) -> int:
    """Count the pauses of one batch in one layer."""
    host = ProcessHost(world.group, world.device)
    placement = Placement(
        plan=one.plan,
        layout=one.instance.layout,
        traffic="direct",
        selection="nearest",
        endpoint="local_nic",
    )
    weights = (torch.ones(2, 4, 8), torch.ones(2, 4, 4))
    layer = placement.direct(0, weights, swiglu, host)
    row = torch.tensor([world.rank])
    standing = Standing(x_NH=torch.ones(1, 4), token_N=row, rank_N=row)
    steps = layer.steps(standing, torch.ones(1, 1), row[:, None] * 2)
    pauses = 0
    for pending in steps:
        pending.wait()
        pauses += 1
    return pauses
