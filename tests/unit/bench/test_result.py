"""Results are read from a manifest's JSON, and written without naming a machine."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from planner.bench.case import read_case
from planner.bench.machine import this_machine
from planner.bench.result import (
    best_eplb,
    primal_integral,
    reached_of,
    read_results,
    write_results,
)
from planner.errors import InputError
from tests.oracles.manifest_data import plan_data
from tests.unit.bench.made import result, yardstick

CASE = """
about = "any"
family = "made"
tags = ["fast"]
topology = "toy-2x2"
[options]
{}
"""


@pytest.fixture
def reach(tmp_path: Path) -> Callable[..., Any]:
    """Read a manifest as the result of a case with these option lines."""

    def make(lines: str = "", **changes: Any) -> Any:
        path = tmp_path / "case.toml"
        path.write_text(CASE.format(lines), encoding="utf-8")
        return reached_of(read_case(path), plan_data() | changes, ())

    return make


def test_options_that_were_not_kept_are_named(reach: Callable[..., Any]) -> None:
    """Law: what the case asks for is compared with what the manifest says."""
    traffic = plan_data()["traffic"]
    kept = reach(f'traffic = "{traffic}"').other_question
    other = "copies" if traffic != "copies" else "dedup_gpu"
    said = reach(f'traffic = "{other}"').other_question
    assert not any(text.startswith("traffic:") for text in kept)
    assert f"traffic: the case asks for {other}, the plan has {traffic}" in said


def test_a_cap_is_compared_as_a_number(reach: Callable[..., Any]) -> None:
    """Law: 1.50 asked for and 1.5 in force are the same."""
    line = 'imbalance_cap = "1.50"'
    kept = reach(line, caps={"gpu": 1.5, "domain": None})
    lost = reach(line, caps={"gpu": None, "domain": None})
    assert not any("imbalance_cap" in text for text in kept.other_question)
    assert any("imbalance_cap" in text for text in lost.other_question)


def test_a_cap_that_is_exceeded_is_seen(reach: Callable[..., Any]) -> None:
    """Law: the worst layer's imbalance is held against the case's cap."""
    figures = {"mean": 1.0, "worst": 1.3, "domain_mean": 1.0, "domain_worst": 1.1}
    assert reach('imbalance_cap = "1.3"', imbalance=figures).keeps_caps
    assert not reach('imbalance_cap = "1.29"', imbalance=figures).keeps_caps
    assert not reach('domain_imbalance_cap = "1.09"', imbalance=figures).keeps_caps


def test_the_best_rival_is_legal_and_within_the_caps() -> None:
    """Law: other baselines are no EPLB; a broken or unbalanced one is no rival."""
    values = {
        "contiguous": yardstick(1),
        "eplb_domains": yardstick(5, keeps_caps=False),
        "eplb_global": yardstick(4, legal=False),
        "eplb_hierarchical": yardstick(6),
    }
    assert best_eplb(values, rival=True) == ("eplb_hierarchical", 6)
    assert best_eplb(values, rival=False) == ("eplb_global", 4)
    assert best_eplb({}, rival=False) is None


def test_the_primal_integral_by_hand() -> None:
    """1 s without a plan, 1 s at twice the last value, 2 s at it: (1 + ½) / 4."""
    history = [
        {"seconds": 1.0, "objective": 20.0},
        {"seconds": 2.0, "objective": 10.0},
        {"seconds": 3.0, "objective": None},
    ]
    assert primal_integral({"seconds": 4.0, "history": history}) == 1.5 / 4
    assert primal_integral({"seconds": 4.0, "history": []}) is None


def test_written_results_read_back_equal(tmp_path: Path) -> None:
    """Law: write ∘ read is the identity; the first line names the schema."""
    path = tmp_path / "results.jsonl"
    results = [result(name="a"), result(name="b", outcome="no_plan", message="late")]
    write_results(path, results, this_machine())
    assert read_results(path) == (this_machine(), results)
    assert json.loads(path.read_text().splitlines()[0])["schema"] == "placement-bench/1"


def test_no_result_names_the_machine(tmp_path: Path) -> None:
    """Law: neither host nor folder is in the file."""
    path = tmp_path / "results.jsonl"
    write_results(path, [result()], this_machine())
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert platform.node() == "" or f'"{platform.node()}"' not in text


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "placement-bench/9"}', "[1]"])
def test_another_file_is_refused(text: str, tmp_path: Path) -> None:
    """Law: exit 3 for what is no file of results."""
    path = tmp_path / "results.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"results\.jsonl"):
        read_results(path)


def test_machines_compare_by_what_decides_their_speed() -> None:
    """Law: a new release of the planner does not hide a slow-down."""
    here = this_machine()
    newer = here.model_copy(update={"versions": {"moe-placement-planner": "9"}})
    other = here.model_copy(update={"cores": here.cores + 1})
    assert here.is_as_fast_as(newer)
    assert not here.is_as_fast_as(other)
