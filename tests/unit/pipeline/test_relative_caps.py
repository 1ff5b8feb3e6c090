"""``--imbalance-cap 1.02x``: as many times the lowest baseline's max/mean (rule 26)."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import InfeasibleError, UsageError, VerificationError
from planner.evaluator import evaluate_planning
from planner.manifest import read_manifest, write_manifest
from planner.options import SolveOptions
from planner.pipeline import Problem, load
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from tests.instances import cluster, small_model

LOADS = [40, 20, 10, 10, 9, 7, 2, 2]
"""With two slots per GPU contiguous puts 60 of 100 on one of four GPUs, max/mean
2.4; EPLB puts 40 with the lightest, 42: 1.68."""


def problem(**options: Any) -> Problem:
    """Return the problem of ``LOADS`` on two hosts of two GPUs."""
    given = {
        "selection": "even",
        "objective": "gpu_tokens",
        "redundant": "0",
        "batch_tokens": 1,
        "kv_tokens": 1024,
        "time_limit": 5.0,
    }
    return load(
        cluster([2, 2]),
        model=small_model(len(LOADS)),
        trace={"layers": [0], "top_k": 1, "tokens": [LOADS]},
        options=SolveOptions(**(given | options)),
    )


def test_a_relative_cap_multiplies_the_lowest_baseline_by_hand() -> None:
    """EPLB's 42 of 100 on one of four GPUs is 1.68: 1.25x of it is 2.1."""
    caps = problem(imbalance_cap="1.25x").instance.caps
    assert caps.gpu_lowest == ((Fraction(168, 100),),)
    assert caps.gpu_at(0) == Fraction(21, 10)
    assert caps.domain_at(0) is None


def test_the_lowest_of_every_layer_is_no_baselines_own_plan() -> None:
    """Law: layer by layer the least figure of any baseline as published counts."""
    options = SolveOptions(imbalance_cap="1x", domain_imbalance_cap="1.5x")
    instance = load("toy-2x2", options=options).instance
    free = replace(instance, caps=replace(instance.caps, gpu=None, domain=None))
    found = []
    for name in BASELINES.names():
        try:
            plan = published_plan(free, name)
        except AbsentBaselineError:
            continue
        found.append(evaluate_planning(free, plan).first)
    for layer in range(instance.layer_count):
        gpu = min(each.gpu_imbalance_L[layer] for each in found)
        domain = min(each.domain_imbalance_L[layer] for each in found)
        assert instance.caps.gpu_at(layer) == gpu
        assert instance.caps.domain_at(layer) == domain * Fraction(3, 2)


def test_every_workload_has_baselines_of_its_own() -> None:
    """Law: of two workloads each is capped by what baselines reach on it."""
    tables = [{"layers": [0], "top_k": 1, "tokens": [row]} for row in (LOADS, [5] * 8)]
    instance = load(
        cluster([2, 2]),
        model=small_model(8),
        trace=tables,
        options=SolveOptions(
            selection="even",
            objective="gpu_tokens",
            redundant="0",
            imbalance_cap="1.5x",
            batch_tokens=1,
            kv_tokens=1024,
        ),
    ).instance
    caps = [view.caps.gpu_at(0) for view in instance.views]
    assert caps[1] == Fraction(3, 2)
    assert caps[0] is not None and caps[0] > caps[1]


@pytest.mark.parametrize("traffic", ["copies", "dedup_domain"])
def test_a_plan_keeps_its_relative_caps_and_verifies(
    tmp_path: Path, traffic: str
) -> None:
    """Law: in no layer is the plan above the cap; the verifier says so too."""
    options = SolveOptions(
        traffic=traffic,
        time_limit=3,
        imbalance_cap="1.01x",
        domain_imbalance_cap="1.02x",
        redundant="0",
    )
    manifest = planner.solve("toy-2x2", options=options)
    caps = manifest.caps
    assert caps.gpu == 1.01 and caps.domain == 1.02
    assert caps.gpu_lowest is not None and caps.domain_lowest is not None
    (gpu,), (domain,) = caps.gpu_lowest.values(), caps.domain_lowest.values()
    for at, layer in enumerate(manifest.prediction.layers):
        assert layer.imbalance <= 1.01 * float(Fraction(gpu[at])) * (1 + 1e-9)
        assert layer.domain_imbalance <= 1.02 * float(Fraction(domain[at])) * (1 + 1e-9)
    path = tmp_path / "plan.json"
    write_manifest(manifest, path)
    assert read_manifest(path).caps == caps
    planner.verify(path)


def test_another_unit_or_a_lowered_yardstick_is_found(tmp_path: Path) -> None:
    """Law: what a relative cap multiplies must fit the baselines and the options."""
    options = SolveOptions(strategy="eplb_global", imbalance_cap="1.5x")
    path = tmp_path / "plan.json"
    write_manifest(planner.solve("toy-2x2", options=options), path)
    said = json.loads(path.read_text())
    (rows,) = said["caps"]["gpu_lowest"].values()
    for change in (
        {"gpu_lowest": None},
        {"gpu_lowest": {"tiny-moe": ["2/1"] * len(rows)}},
        {"gpu_lowest": {"tiny-moe": rows[1:]}},
        {"gpu_lowest": {"tiny-moe": ["1/2"] * len(rows)}},
        {"gpu_lowest": {"another": rows}},
    ):
        path.write_text(json.dumps(said | {"caps": said["caps"] | change}))
        with pytest.raises(VerificationError, match="imbalance_cap"):
            planner.verify(path)


def test_below_the_floor_names_layer_expert_and_a_repair() -> None:
    """40 of 100 on one of four GPUs is 1.6, 0.9524 of the lowest baseline's 1.68."""
    with pytest.raises(InfeasibleError) as caught:
        problem(imbalance_cap="0.95x")
    (cause,) = caught.value.causes
    assert cause.name == "imbalance_cap"
    floor = float(Fraction(160, 168))
    assert cause.numbers == {"cap": 0.95, "floor": floor, "layer": 0, "expert": 0}
    words = [repair.what for repair in cause.repairs]
    assert "--imbalance-cap 1.0000x instead of 0.95x" in words
    for repair in cause.repairs:
        problem(**dict(repair.options))


def test_below_one_no_expert_is_to_blame() -> None:
    """Law: no max/mean is below 1, so half of the lowest is proven impossible."""
    with pytest.raises(InfeasibleError, match="no max/mean is below 1"):
        load("toy-2x2", options=SolveOptions(imbalance_cap="0.5x"))


@pytest.mark.parametrize("text", ["x", "1.02y", "nanx", "0x", "-1x", "1e999x"])
def test_a_malformed_relative_cap_is_a_usage_error(text: str) -> None:
    """Law: words are checked before anything is loaded."""
    with pytest.raises(UsageError, match="imbalance-cap"):
        problem(domain_imbalance_cap=text)
