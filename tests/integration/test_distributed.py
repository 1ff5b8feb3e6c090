"""The bundled model between processes: its router chooses, gloo moves the rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner import bundled
from planner.errors import UsageError
from planner.executor.replay import replay
from planner.executor.result import OUTPUT_TOLERANCE
from planner.manifest import write_manifest
from planner.options import SolveOptions
from planner.plan import PlacementPlan
from planner.topology.schema import load_topology
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.trace import RoutingTrace, load_trace
from tests.instances import cluster, placed_on
from tests.unit.executor.placed import random_slots
from tests.unit.executor.replays import PROGRAMS, Job, Seen, predicted

torch = pytest.importorskip("torch")

from planner.executor.world.nursery import PRELOAD, Nursery  # noqa: E402
from planner.executor.world.standing import StandingWorld  # noqa: E402

pytestmark = pytest.mark.torch
CLUSTERS = {2: [1, 1], 4: [2, 2], 8: [4, 4]}
ROWS = 220
WAYS = [
    (4, traffic, selection, "placed" if selection == "nearest" else "replicated")
    for traffic in ("copies", "dedup_gpu", "dedup_domain", "direct")
    for selection in ("nearest", "even", "weighted")
] + [
    (gpus, traffic, "even", "replicated")
    for gpus in (2, 8)
    for traffic in ("dedup_domain", "direct")
]


@pytest.fixture(scope="module")
def text() -> RoutingTrace:
    trace = load_trace(bundled.tiny_moe_trace())
    assert isinstance(trace, RoutingTrace)
    return trace


@pytest.fixture(scope="module")
def worlds() -> Iterator[dict[int, StandingWorld]]:
    """Worlds of 2, 4 and 8 gloo ranks."""
    nursery = Nursery((*PRELOAD, *PROGRAMS))
    found = {size: StandingWorld(size, nursery=nursery) for size in CLUSTERS}
    yield found
    for world in found.values():
        world.close()
    nursery.close()


def job(
    trace: RoutingTrace, gpus: int, traffic: str, selection: str, regime: str
) -> Job:
    """Whole sequences at the start of the trace, tokens dealt to GPUs in turn."""
    rng = np.random.default_rng(5)
    topology = load_topology(cluster(CLUSTERS[gpus]))
    ends = np.flatnonzero(np.diff(trace.sequence_T, append=-1)) + 1
    rows = int(ends[ends <= ROWS].max())
    width = trace.num_experts // gpus + (2 if regime == "replicated" else 0)
    slots = np.stack(
        [random_slots(trace.num_experts, gpus, width, rng) for _ in trace.layer_numbers]
    )
    source = np.arange(rows) % gpus
    part = TokenPart(
        experts_LTK=trace.experts_LTK[:, :rows],
        source_T=source,
        rank_T=source,
        ordinal_T=np.arange(rows) // gpus,
        row_T=np.arange(rows),
    )
    split = {
        (1, e): {"*": tuple(range(1, 1 + int((slots[1] == e).sum())))}
        for e in range(0, 64, 3)
    }
    return Job(
        instance=placed_on(
            topology,
            load_model("tiny-moe"),
            part,
            slots=width,
            traffic=traffic,
            selection=selection,
        ),
        plan=PlacementPlan(
            layer_numbers=trace.layer_numbers, slots_LGJ=slots, split=split
        ),
    )


def read_between(
    world: Any, job: Job, token_ids: Any, seq_ids: Any
) -> tuple[Seen, float]:
    """Replay the text on one rank of a world."""
    from planner.executor.host import ProcessHost

    result = replay(
        "distributed",
        "real",
        **job.options,
        weights=bundled.tiny_moe_weights(),
        token_ids=token_ids,
        seq_ids=seq_ids,
        host=ProcessHost(world.group, world.device),
    )
    assert result.ids_agreeing is not None
    return Seen.of(result), result.ids_agreeing


@pytest.mark.parametrize(("gpus", "traffic", "selection", "regime"), WAYS)
def test_the_text_moves_between_processes_as_predicted(
    text: RoutingTrace,
    worlds: dict[int, StandingWorld],
    gpus: int,
    traffic: str,
    selection: str,
    regime: str,
) -> None:
    """Law: every rank's router chooses what is recorded, and rows move as predicted."""
    one = job(text, gpus, traffic, selection, regime)
    wanted = predicted(one)
    for seen, agreeing in worlds[gpus].run(
        read_between, one, text.token_id_T, text.sequence_T
    ):
        assert seen.differs(wanted) == []
        assert agreeing == 1.0
        assert seen.error is not None
        assert 0 < seen.error <= OUTPUT_TOLERANCE


def test_ranks_are_started_where_no_launcher_did(tmp_path: Path) -> None:
    """Law: one process per GPU, one report, and a timeline of every rank."""
    path = tmp_path / "plan.json"
    options = SolveOptions(time_limit=1, redundant="0")
    write_manifest(planner.solve("toy-2x2", options=options), path)
    here = planner.replay(path, part="holdout", executor="local")
    between = planner.replay(
        path, part="holdout", executor="distributed", timeline=tmp_path / "seen"
    )
    assert between.executor == "distributed"
    for ours, theirs in zip(here.parts, between.parts, strict=True):
        assert ours.transfers == theirs.transfers
        assert theirs.ids_agreeing == 1.0
        (buffers,) = (term for term in theirs.memory if term.term == "buffers")
        assert len(buffers.measured) == 4
        assert min(buffers.measured) > 0
        assert max(buffers.measured) < buffers.promised
    trace = json.loads((tmp_path / "seen" / "timeline.json").read_text())
    assert {event["pid"] for event in trace["traceEvents"]} == {0, 1, 2, 3}
    assert (tmp_path / "seen" / "timeline.svg").read_text().startswith("<svg")


def test_a_timeline_needs_rows_that_travel(tmp_path: Path) -> None:
    """Law: no empty picture of a replay that moved nothing between processes."""
    with pytest.raises(UsageError, match="--executor distributed"):
        planner.replay(tmp_path / "no.json", executor="counter", timeline=tmp_path)
