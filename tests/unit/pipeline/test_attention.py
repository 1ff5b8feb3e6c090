"""Attention groups of unlike GPUs: from the options to the verifier and the replay."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import InfeasibleError, UsageError, VerificationError
from planner.manifest import Manifest, digest_of_json, write_manifest
from planner.options import SolveOptions
from planner.pipeline.problem import Problem, Sources, build_problem
from planner.pipeline.reopening import reopen
from planner.pipeline.solving import load, solve
from planner.verifier import verify_manifest
from tests.instances import cluster

HALVES = SolveOptions(layout="tp=2,dp=2", strategy="contiguous")
RUNS = [["h0/g0", "h0/g1"], ["h1/g0", "h1/g1"]]


def hosts(memory: Sequence[int], **changes: dict[str, Any]) -> dict[str, Any]:
    """Return two hosts of four GPUs; every host has these bytes on its GPUs."""
    topology = cluster([4, 4])
    for node in topology["nodes"]:
        if node["kind"] == "gpu":
            node["memory_bytes"] = memory[int(node["id"][-1])]
    for edge in topology["edges"]:
        edge |= changes.get(edge["source"], {}) | changes.get(edge["target"], {})
    return topology


def built(topology: dict[str, Any], groups: list[list[str]] | None) -> Problem:
    return build_problem(
        Sources(topology=topology, base=Path.cwd()), HALVES, groups=groups
    )


def needs() -> tuple[int, int]:
    """Return what a GPU needs that attends, and one that holds experts only."""
    problem = built(hosts([10**9] * 4), RUNS)
    each = problem.instance.memory_bytes_G.tolist()
    return each[0], each[3]


def test_groups_of_consecutive_gpus_lack_memory_that_chosen_ones_have() -> None:
    """Every other GPU is too small to attend, but holds its experts.

    Law: the choice is feasible wherever some choice is; here consecutive is not.
    """
    attending, experts_only = needs()
    assert attending > experts_only
    topology = hosts([attending, experts_only] * 2)
    with pytest.raises(InfeasibleError, match="h0/g1 needs"):
        built(topology, RUNS)
    chosen = built(topology, None)
    assert chosen.instance.layout.attention_groups == ((0, 2), (4, 6))
    assert any("hold experts only" in note for note in chosen.notes)


def test_memory_that_no_choice_has_is_still_infeasible() -> None:
    """One byte less on all: the GPU that misses it is named."""
    attending, experts_only = needs()
    with pytest.raises(InfeasibleError, match="short"):
        built(hosts([attending - 1, experts_only] * 2), None)


def test_equal_gpus_keep_consecutive_groups() -> None:
    """Nothing to decide: runs, as many as there are, and no note about them."""
    options = SolveOptions(layout="tp=2")
    problem = load(hosts([10**9] * 4), options=options)
    assert problem.instance.layout.attention_groups == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert not any("unlike" in note for note in problem.notes)


def test_all_gpus_attend_beside_their_like() -> None:
    """All are in groups; those with as much memory stand together."""
    options = SolveOptions(layout="tp=2")
    problem = load(hosts([10**9, 2 * 10**9] * 2), options=options)
    assert problem.instance.layout.attention_groups == ((0, 2), (1, 3), (4, 6), (5, 7))


def test_groups_avoid_a_narrow_port() -> None:
    """The NVLink ports of two GPUs of each host are ten times narrower."""
    slow = {"bandwidth_gbs": 40}
    topology = hosts([10**9] * 4)
    for edge in topology["edges"]:
        if edge["kind"] == "nvlink" and edge["source"][-1] in "03":
            edge |= slow
    layout = load(topology, options=HALVES).instance.layout
    assert layout.attention_groups == ((1, 2), (5, 6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("attention")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Manifest:
    """Return a plan with attention on every other GPU."""
    attending, experts_only = needs()
    topology = hosts([attending, experts_only] * 2)
    manifest = solve(topology, options=HALVES, base=folder)
    write_manifest(manifest, folder / "plan.json")
    return manifest


def test_the_manifest_names_the_groups_and_verifies(
    plan: Manifest, folder: Path
) -> None:
    """Groups, memory and every count of traffic are found again."""
    names = [group.gpus for group in plan.groups.attention]
    assert names == [("h0/g0", "h0/g2"), ("h1/g0", "h1/g2")]
    assert verify_manifest(folder / "plan.json").comparisons > 0
    assert reopen(folder / "plan.json").problem.instance.layout.attention_groups == (
        (0, 2),
        (4, 6),
    )


def test_the_replay_moves_what_was_predicted(plan: Manifest, folder: Path) -> None:
    """Tokens leave from the GPUs of the groups only."""
    report = planner.replay(folder / "plan.json", executor="counter")
    assert all(part.transfers > 0 for part in report.parts)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["h0/g0", "h0/g2"]], "dp is 1"),
        ([["h0/g0", "h0/g2"], ["h0/g0", "h0/g1"]], "in two groups"),
        ([["h0/g0", "h0/g2"], ["h1/g0", "h0/g1"]], "spans several"),
        ([["h0/g0"], ["h1/g0"]], "tp is 1"),
        ([["h0/g0", "h0/g2"], ["h1/g0", "elsewhere"]], "not one of the plan's"),
    ],
)
def test_groups_that_cannot_be_are_refused(
    plan: Manifest, folder: Path, groups: list[list[str]], message: str
) -> None:
    """Law: every lie about groups is found."""
    data = json.loads((folder / "plan.json").read_text())
    data["groups"]["attention"] = [
        {"dp_rank": rank, "gpus": gpus} for rank, gpus in enumerate(groups)
    ]
    with pytest.raises(VerificationError) as caught:
        verify_manifest(data, folder=folder)
    assert message in "; ".join(caught.value.findings)


def test_a_plan_that_attends_everywhere_says_so(folder: Path, plan: Manifest) -> None:
    """Without a number of groups asked for, every GPU has to be in one."""
    data = json.loads((folder / "plan.json").read_text())
    options = data["inputs"]["options"]
    options["values"]["layout"] = "tp=2"
    options["sha256"] = digest_of_json(options["values"])
    with pytest.raises(VerificationError) as caught:
        verify_manifest(data, folder=folder)
    assert "not every GPU is in exactly one group" in "; ".join(caught.value.findings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "tp=2,dp=2,ep=4"}, "needs one EP set"),
        ({"traffic": "direct"}, "attend where their experts are"),
    ],
)
def test_attention_on_some_gpus_is_refused_where_all_are_needed(
    changes: dict[str, str], message: str
) -> None:
    """One clear error, exit code 2."""
    options = SolveOptions(**{"layout": "tp=2,dp=2", **changes})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        load(hosts([10**9] * 4), options=options)
