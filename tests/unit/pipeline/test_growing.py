"""``--redundant auto``: the rule against plans of every fixed number of slots."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.errors import InfeasibleError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline import load
from planner.pipeline.growing import grown
from planner.pipeline.problem import Problem
from planner.plan import PlacementPlan
from planner.strategies.base import Event, Limits, SolveResult
from tests.instances import cluster, small_model

HOT = [40, 9, 7, 5, 3, 2, 2, 1]
PINNED = {"pins": [{"experts": [1], "at": ["h0/g1"]}]}
SLOTS = (2, 3, 4, 5, 6, 7, 8)


def hosts(memory: int = 10**9) -> dict[str, Any]:
    """Return two hosts of two GPUs with this much memory each."""
    found = cluster([2, 2])
    for node in found["nodes"]:
        if node["kind"] == "gpu":
            node["memory_bytes"] = memory
    return found


def asked(**options: Any) -> SolveOptions:
    """Return options under which GPU loads decide."""
    given = {"selection": "even", "objective": "gpu_tokens", "deterministic": True}
    return SolveOptions(**(given | {"kv_tokens": 1024, "batch_tokens": 1} | options))


def planned(loads: list[int], memory: int = 10**9, **options: Any) -> Manifest:
    """Plan one layer with these loads per expert."""
    counts = {"layers": [0], "top_k": 1, "tokens": [loads]}
    return planner.solve(
        hosts(memory),
        model=small_model(len(loads)),
        trace=counts,
        options=asked(**options),
    )


def slots_of(manifest: Manifest) -> int:
    """Return the slots of a GPU."""
    return len(manifest.layers[0].slots[0])


def why(manifest: Manifest) -> str:
    """Return what the manifest says about its number of slots."""
    (note,) = (n for n in manifest.provenance.notes if n.startswith("slots per GPU"))
    return note


@pytest.mark.parametrize(
    "loads", [HOT, [9, 9, 9, 9, 8, 8, 8, 8], [30, 25, 3, 3, 2, 2, 1, 1]]
)
def test_slots_grow_while_they_gain_one_percent(loads: list[int]) -> None:
    """Law: the number at which one more gains less, of plans with fixed numbers."""
    fixed = [planned(loads, redundant=str(4 * slots - 8)) for slots in SLOTS]
    values = [manifest.objective.value for manifest in fixed]
    at = 0
    while at + 1 < len(values) and values[at + 1] <= 0.99 * values[at]:
        at += 1
    found = planned(loads, redundant="auto")
    assert slots_of(found) == SLOTS[at], why(found)
    assert found.objective.value == values[at]
    assert found.inputs.options.values["redundant"] == 4 * SLOTS[at] - 8
    assert "gains less than 1 %" in why(found)


def test_memory_ends_it(tmp_path: Path) -> None:
    """Law: with room for two slots and a byte short of three, two are taken."""
    counts = {"layers": [0], "top_k": 1, "tokens": [HOT]}
    three = load(
        hosts(), model=small_model(8), trace=counts, options=asked(redundant="4")
    ).instance.memory_bytes_G
    found = planned(HOT, int(three[0]) - 1, redundant="auto")
    assert slots_of(found) == 2
    assert why(found).endswith("because of: memory")
    assert slots_of(planned(HOT, int(three[0]), redundant="auto")) == 3
    write_manifest(found, tmp_path / "plan.json")
    assert planner.verify(tmp_path / "plan.json").comparisons > 0


def test_nothing_is_left_where_every_token_stays_at_home() -> None:
    """By hand: two experts on four GPUs; with both on each nothing travels."""
    found = planned(
        [5, 3],
        redundant="auto",
        layout="ep=2",
        objective="link_time",
        selection="nearest",
        traffic="copies",
    )
    assert slots_of(found) == 2
    assert found.objective.value == 0
    assert why(found).endswith("because of: nothing is left to gain")


GOOD, BAD = [[0, 7], [1, 6], [2, 5], [3, 4]], [[0, 1], [2, 3], [4, 5], [6, 7]]
"""Slots that put 41 and 49 of the pairs on the fullest GPU."""


@pytest.mark.parametrize("found", [(GOOD, BAD), (BAD, GOOD)])
def test_the_time_left_makes_nothing_worse(found: tuple[list[list[int]], ...]) -> None:
    """Law: what goes on with the number taken is kept if it is better, only then."""
    counts = {"layers": [0], "top_k": 1, "tokens": [HOT]}
    problem = load(hosts(), model=small_model(8), trace=counts, options=asked())
    waiting = list(found)

    def strategy(*_: Any) -> SolveResult:
        slots_LGJ = np.asarray([waiting.pop(0)], dtype=np.int16)
        plan = PlacementPlan(layer_numbers=(0,), slots_LGJ=slots_LGJ)
        return SolveResult(plan=plan, reason="limit", layer_strategies=("start",))

    def build(_: SolveOptions) -> Problem:
        raise InfeasibleError("no room")

    _, result = grown(problem, build, strategy, Limits(seconds=60))
    assert not waiting
    assert result.plan.slots_LGJ[0].tolist() == GOOD


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kv_tokens": None, "mem_fraction": 0.9}, "--mem-fraction"),
        ({"strategy": "eplb_global"}, "eplb_global plans one number"),
        ({"constraints": PINNED}, "--constraints"),
    ],
)
def test_the_fewest_are_taken_with_the_reason(
    changes: dict[str, Any], says: str
) -> None:
    """Law: where slots cannot grow, the plan is that of the fewest and says why."""
    found = planned(HOT, **changes)
    assert slots_of(found) == 2
    assert says in why(found)
    assert found.inputs.options.values["redundant"] == 0


def test_a_policy_that_fixes_the_slots_needs_no_reason() -> None:
    """Law: one expert per GPU is one slot, whatever more would gain."""
    found = planned(HOT[:4], policy="one_expert_per_gpu")
    assert slots_of(found) == 1
    assert not [n for n in found.provenance.notes if n.startswith("slots per GPU")]


def test_a_dumped_model_is_that_of_the_plan(tmp_path: Path) -> None:
    """Law: the model that is written has the slots of the plan that is returned."""
    counts = {"layers": [0], "top_k": 1, "tokens": [HOT]}
    found = planner.solve(
        hosts(),
        model=small_model(8),
        trace=counts,
        options=asked(),
        model_file=tmp_path / "model.mps",
    )
    assert slots_of(found) == 2
    assert "--dump-model" in why(found)


def test_what_is_shown_never_gets_worse() -> None:
    """Law: the incumbent a reader sees is the best of all numbers of slots."""
    shown: list[Event] = []
    counts = {"layers": [0], "top_k": 1, "tokens": [HOT]}
    planner.solve(
        hosts(),
        model=small_model(8),
        trace=counts,
        options=asked(),
        progress=shown.append,
    )
    values = [event.objective for event in shown if event.objective is not None]
    assert len(values) > 2
    assert values == sorted(values, reverse=True)
