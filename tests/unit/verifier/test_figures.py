"""Slots and figures: a true manifest passes, every single lie is found."""

from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from planner import bundled
from planner.manifest import (
    digest_of_file,
    parse_manifest,
    write_manifest,
)
from planner.topology.schema import load_topology
from planner.verifier import (
    check_digests,
    model_of,
    settings_of,
    topology_of,
    verify_manifest,
)
from planner.verifier.traffic import count_again, tokens_of
from planner.workload.parts import CountsPart
from tests.oracles.valid_plan import SLOTS, valid_plan
from tests.unit.verifier.lies import Data, more, put, refused


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"traffic": "copies", "endpoint": "local_nic"},
        {"traffic": "copies", "endpoint": "dest_forward", "selection": "even"},
        {"traffic": "copies", "endpoint": "pxn", "selection": "even"},
        {"traffic": "dedup_gpu", "endpoint": "local_nic", "objective": "gpu_tokens"},
        {"selection": "weighted", "objective": "link_tokens", "layers": "worst_layer"},
        {
            "selection": "weighted",
            "split": {0: {0: {"0": (1, 3), "*": (2, 1)}}, 1: {1: {"*": (0, 5)}}},
        },
    ],
)
def test_a_true_manifest_passes(tmp_path: Path, changes: Data) -> None:
    """Law: every mode, selection and objective can be verified."""
    report = verify_manifest(valid_plan(tmp_path, **changes), folder=tmp_path)
    made = {check.name: check.comparisons for check in report.checks}
    assert made["coverage"] == 2 * 6
    assert made["memory"] == 4 * 3
    assert made["link loads"] == 2 * 2
    assert made["objectives"] == 2 * (9 * 2 + 4)
    assert report.comparisons == sum(made.values()) > 150
    assert any("baselines" in sentence for sentence in report.not_checked)


def test_a_file_is_verified_beside_its_inputs(true_plan: Data, folder: Path) -> None:
    """Law: recorded paths are relative to the manifest."""
    write_manifest(parse_manifest(true_plan), folder / "plan.json")
    from_file = verify_manifest(folder / "plan.json")
    assert from_file == verify_manifest(parse_manifest(true_plan), folder=folder)
    manifest = parse_manifest(true_plan)
    assert check_digests(manifest, folder) == 4
    assert model_of(manifest, folder).name == "small"
    assert topology_of(manifest, folder).gpu_count == 4


def test_one_slot_changed_is_found(true_plan: Data, folder: Path) -> None:
    """Two experts trade places: legal, but every figure is of another plan."""
    said = refused(
        true_plan,
        folder,
        put("/layers/0/slots/0", [2, 1]),
        put("/layers/0/slots/1", [0, 3]),
    )
    assert "transfers_sha256" in said
    assert "layer 2" not in said


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("/layers/0/slots/0", [0, 0], "holds expert 0 twice"),
        ("/layers/0/slots/0", [0, 2], "expert 1 has no copy"),
        ("/layers/0/slots/0", [0, 6], "holds expert 6"),
        ("/layers/0/slots/0", [0, 1, 2], "has 2 slots, others have 3"),
        ("/layers/0/slots", lambda rows: rows[:3], "slots of 3 GPUs"),
        ("/gpus", lambda ids: ids[::-1], "not the GPUs of the topology"),
        ("/groups/ep", 2, "ep 2 times 1 replicas is not 4"),
        ("/groups/expert_tp", 2, "not supported"),
        ("/groups/attention/0/dp_rank", 3, "listed in place 0"),
        ("/groups/attention/0/gpus", lambda ids: [ids[0], "x"], "exactly one group"),
        ("/groups/attention", lambda groups: groups[:3], "exactly one group"),
    ],
)
def test_what_is_no_plan_is_found(
    true_plan: Data, folder: Path, path: str, value: object, says: str
) -> None:
    """Slots, coverage, EP sets and attention groups."""
    assert says in refused(true_plan, folder, put(path, value))


def test_an_attention_group_across_domains_is_found(
    true_plan: Data, folder: Path
) -> None:
    """DP ranks of two GPUs, each with one GPU of either domain."""
    ids = true_plan["gpus"]
    groups = [
        {"dp_rank": 0, "gpus": [ids[0], ids[2]]},
        {"dp_rank": 1, "gpus": [ids[1], ids[3]]},
    ]
    said = refused(true_plan, folder, put("/groups/attention", groups))
    assert "DP rank 0 spans several scale-up domains" in said


PART = "/prediction"
LAYER = "/prediction/layers/1"
UNSEEN = "/holdout/prediction/layers/0"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (f"{PART}/q", "7", "prediction.q"),
        (f"{PART}/tokens_exact", "9/1", "prediction.tokens_exact"),
        (f"{PART}/inter_domain_bytes_exact", "9/1", "inter_domain_bytes_exact"),
        (f"{PART}/home_tokens_max_over_mean", more, "home_tokens_max_over_mean"),
        (f"{PART}/message_bytes/combine", 1, "message_bytes"),
        (f"{PART}/gpus/2/memory_bytes", 1, "memory_bytes"),
        (f"{PART}/gpus/2/memory_limit_bytes", 1, "memory_limit_bytes"),
        (f"{PART}/gpus/2/gpu", "other", "prediction.gpus other"),
        (f"{PART}/gpus/2/pairs", more, "pairs"),
        (f"{PART}/gpus/2/pairs_exact", "1/3", "pairs"),
        (f"{LAYER}/transfers_exact", "1/1", "layer 2 transfers_exact"),
        (f"{LAYER}/inter_domain_transfers_exact", "1/1", "inter_domain_transfers"),
        (f"{LAYER}/transfers_sha256", "0" * 64, "layer 2 transfers_sha256"),
        (f"{LAYER}/links_sha256", "0" * 64, "layer 2 links_sha256"),
        (f"{LAYER}/imbalance", more, "layer 2 imbalance"),
        (f"{LAYER}/domain_imbalance", more, "layer 2 domain_imbalance"),
        (f"{LAYER}/busiest", lambda links: links[1:], "layer 2 entries"),
        (f"{LAYER}/busiest", lambda links: [links[1], *links[1:]], "layer 2 dispatch"),
        (f"{LAYER}/busiest/0/link", "a -> b", "layer 2 dispatch"),
        (f"{LAYER}/busiest/0/tokens", more, "layer 2 dispatch"),
        (f"{LAYER}/busiest/0/bytes", more, "layer 2 dispatch"),
        (f"{LAYER}/busiest/0/seconds", more, "layer 2 dispatch"),
        (f"{LAYER}/busiest/0/seconds_exact", "1/7", "layer 2 dispatch"),
        (f"{UNSEEN}/links_sha256", "0" * 64, "holdout layer 1 links_sha256"),
        ("/holdout/tokens", more, "holdout.tokens"),
        ("/holdout/objective/link_time/pipelined", more, "holdout.objective"),
        ("/holdout/imbalance/worst", more, "holdout.imbalance.worst"),
        ("/imbalance/domain_mean", more, "imbalance.domain_mean"),
        ("/objective/scope", [], "objective.scope"),
        ("/objective/unit", "tokens", "objective.unit"),
        ("/objective/value", more, "objective.value"),
        ("/objective/value_exact", "1/3", "objective.value_exact"),
        ("/workloads/small/tokens", more, "workloads.small.tokens"),
        ("/workloads/small/objective", more, "workloads.small.objective"),
        ("/workloads/small/traffic", "copies", "workloads.small.traffic"),
        ("/workloads/small/weight", "1/2", "workloads.small.weight"),
        ("/workloads", {}, "one per trace"),
    ],
)
def test_every_false_figure_is_found(
    true_plan: Data, folder: Path, path: str, value: object, says: str
) -> None:
    """Law: no figure of a manifest can be changed unnoticed."""
    assert says in refused(true_plan, folder, put(path, value))


@pytest.mark.parametrize("name", ["link_time", "link_tokens", "gpu_tokens"])
@pytest.mark.parametrize("mode", ["sequential", "pipelined", "worst_layer"])
@pytest.mark.parametrize("part", ["/objective", "/holdout/objective"])
def test_each_of_the_nine_values_is_checked(
    true_plan: Data, folder: Path, name: str, mode: str, part: str
) -> None:
    """Law: all nine, on both parts, as numbers and exactly."""
    where = f"{part[1:].replace('/', '.')}.{name}.{mode}"
    assert where in refused(true_plan, folder, put(f"{part}/{name}/{mode}", more))
    assert f"{where}_exact" in refused(
        true_plan, folder, put(f"{part}/{name}/{mode}_exact", "1/3")
    )


def test_a_lie_that_agrees_with_itself_is_found(true_plan: Data, folder: Path) -> None:
    """A better objective, told consistently everywhere, is still counted again."""
    data = deepcopy(true_plan)
    better = Fraction(data["objective"]["value_exact"]) / 2
    text = f"{better.numerator}/{better.denominator}"
    values = data["objective"]
    values["value"] = values["link_time"]["sequential"] = float(better)
    values["value_exact"] = values["link_time"]["sequential_exact"] = text
    data["workloads"]["small"]["objective"] = float(better)
    assert "objective.link_time.sequential" in refused(data, folder)


def test_memory_that_does_not_fit_is_found(tmp_path: Path) -> None:
    """A true bill that no GPU can pay."""
    plan = valid_plan(tmp_path)
    limit = plan["prediction"]["gpus"][0]["memory_limit_bytes"]
    tokens = limit // 100
    said = refused(plan, tmp_path, put("/inputs/options/values/kv_tokens", tokens))
    assert "and has" in said


@pytest.mark.parametrize("endpoint", ["local_nic", "pxn", "dest_forward"])
def test_a_counts_table_is_counted_in_exact_shares(
    tmp_path: Path, endpoint: str
) -> None:
    """Six pairs of expert 0, copies on GPUs 0 and 3: 3/4 from each GPU to each.

    Between domains that is four times 3/4; a relay adds hops only inside domains.
    """
    plan = valid_plan(tmp_path, traffic="copies", endpoint=endpoint, selection="even")
    (setting,) = settings_of(parse_manifest(plan), tmp_path)
    tokens_LE = np.asarray([[6, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 8]])
    part = CountsPart(tokens_LE=tokens_LE, top_k=2)
    first, second = count_again(setting, part)
    pairs = [Fraction(int(n), first.denominator) for n in first.pairs_G]
    assert pairs == [3, 0, 0, 3]
    far = setting.layout.domain_G[:, None] != setting.layout.domain_G[None, :]
    crossing = Fraction(int(first.transfers.matrix()[far].sum()), first.denominator)
    inside = Fraction(int(first.transfers.matrix()[~far].sum()), first.denominator)
    assert crossing == 4 * Fraction(3, 4)
    # Own domain: GPU 1 to 0 and GPU 2 to 3; rail mates relay for the two others.
    assert inside == (2 if endpoint == "local_nic" else 4) * Fraction(3, 4)
    assert [int(n) // second.denominator for n in second.pairs_G] == [0, 8, 0, 0]
    assert tokens_of(part) == Fraction(6 + 8, 2) / 2


def test_the_slots_of_the_tests_leave_something_to_choose() -> None:
    """The small plan has replicas in both layers and crosses domains."""
    for rows in SLOTS:
        held = [expert for row in rows for expert in row]
        assert len(held) > len(set(held)) == 6
    assert len(load_topology("toy-2x2").domains) == 2
    assert digest_of_file(bundled.topology_path("toy-2x2"))
