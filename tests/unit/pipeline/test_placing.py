"""``--groups placed`` from the options to the verifier and the replay."""

from pathlib import Path

import numpy as np
import pytest

import planner
from planner.errors import UsageError
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline.evaluating import evaluate
from planner.pipeline.solving import solve
from planner.verifier import verify_manifest
from planner.workload.trace_writer import write_trace
from tests.instances import cluster

MODEL = {
    "schema": "moe-model/1",
    "name": "one-by-eight",
    "layers": 1,
    "moe_layers": [0],
    "experts": 8,
    "top_k": 2,
    "hidden": 128,
    "expert_ffn": 64,
    "vocab": 100,
    "attention": {"heads": 2, "kv_heads": 2, "head_dim": 64},
}
TAGGED = SolveOptions(homes="by_tag", groups="placed", strategy="search", time_limit=2)
HOSTS = cluster([2, 2, 2, 2])


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return eight tags of ten sequences; tags n and n + 4 use the same two experts."""
    path = tmp_path_factory.mktemp("placing") / "tags.parquet"
    rng = np.random.default_rng(0)
    tag = np.repeat(np.arange(8), 80)
    pairs = np.stack([rng.permutation(2) for _ in tag])
    write_trace(
        path,
        metadata={"num_experts": 8, "top_k": 2, "order": "router"},
        seq_id=np.arange(640) // 8,
        pos=np.arange(640) % 8,
        tag=[f"tag{number}" for number in tag],
        phase="prefill",
        experts={0: 2 * (tag % 4)[:, None] + pairs},
    )
    return path


@pytest.fixture(scope="module")
def plan(trace: Path) -> Manifest:
    """Return the plan with groups placed, written beside the trace."""
    manifest = solve(HOSTS, model=MODEL, trace=trace, options=TAGGED, base=trace.parent)
    write_manifest(manifest, trace.parent / "plan.json")
    return manifest


def test_tags_that_use_the_same_experts_share_a_host(plan: Manifest) -> None:
    """Tags 0 and 4 are the homes of ranks 0 and 4, and so on."""
    host = {g.dp_rank: g.gpus[0].split("/")[0] for g in plan.groups.attention}
    assert all(host[rank] == host[rank + 4] for rank in range(4))
    assert plan.groups.attention[0].dp_rank == 0
    assert any("attend on another group" in note for note in plan.provenance.notes)


def test_seen_and_unseen_tokens_stay_on_their_hosts(plan: Manifest) -> None:
    """Law: groups do not depend on which tokens are held out."""
    assert plan.holdout is not None
    for prediction in (plan.prediction, plan.holdout.prediction):
        for layer in prediction.layers:
            assert layer.inter_domain_transfers_exact == "0/1"


def test_the_plan_verifies_and_replays(plan: Manifest, trace: Path) -> None:
    """The groups of the manifest are what is counted by."""
    path = trace.parent / "plan.json"
    assert verify_manifest(path).comparisons > 0
    report = planner.replay(path, executor="counter")
    assert len(report.parts) == 2
    scores = evaluate(HOSTS, plan=path, trace=trace, model=MODEL, options=TAGGED)
    value = scores["parts"]["planning"]["values"]["link_time"]["sequential"]
    assert value == pytest.approx(float(plan.objective.value))


def test_the_same_work_places_the_same(trace: Path) -> None:
    """Law: with counted work groups and slots depend on the input alone."""
    options = SolveOptions(
        homes="by_tag", groups="placed", time_limit=1, deterministic=True
    )
    both = [
        solve(HOSTS, model=MODEL, trace=trace, options=options, base=trace.parent)
        for _ in range(2)
    ]
    assert both[0].groups == both[1].groups
    assert both[0].layers == both[1].layers


def test_a_model_is_not_dumped_for_groups_that_are_yet_to_be_placed(
    trace: Path,
) -> None:
    """Its homes would be others than the plan's."""
    with pytest.raises(UsageError, match="leave out --groups placed"):
        solve(
            HOSTS,
            model=MODEL,
            trace=trace,
            options=TAGGED,
            model_file=trace.parent / "model.mps",
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"homes": "by_token"}, "goes with --homes by_tag"),
        ({"objective": "gpu_tokens"}, "does not look at"),
        ({"traffic": "direct"}, "attend where their experts are"),
        ({"groups": "elsewhere"}, "choose from auto, placed"),
    ],
)
def test_what_placing_does_not_go_with_is_refused(
    trace: Path, changes: dict[str, str], message: str
) -> None:
    """One clear error, exit code 2."""
    given = {"homes": "by_tag", "groups": "placed", **changes}
    options = SolveOptions(**given)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message):
        solve(HOSTS, model=MODEL, trace=trace, options=options)
