"""``planner gate``: two manifests of the same inputs, one verdict."""

import json
from collections.abc import Callable
from copy import deepcopy
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner import pipeline
from planner.bench.gate import Comparison, compare, parse_share
from planner.bench.reports.comparison import (
    comparison_annotations,
    comparison_junit,
    comparison_markdown,
    comparison_text,
)
from planner.errors import ManifestError, UsageError, VerificationError
from tests.oracles.manifest_data import plan_data

Write = Callable[..., Path]
ONE = Fraction(1, 100)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a manifest after an edit; verification is taken as passed."""
    monkeypatch.setattr(pipeline, "verify", lambda path: None)

    def make(name: str, edit: Callable[[dict[str, Any]], object] = id) -> Path:
        data = deepcopy(plan_data())
        edit(data)
        path = tmp_path / name
        path.write_text(json.dumps(data), encoding="utf-8")
        return path

    return make


def valued(factor: Fraction, *, holdout: Fraction | None = None) -> Callable[..., Any]:
    """An edit that scales the objective of either part."""

    def edit(data: dict[str, Any]) -> None:
        for part, scale in ((data, factor), (data["holdout"], holdout or factor)):
            value = Fraction(part["objective"]["value_exact"]) * scale
            part["objective"] = part["objective"] | {
                "value": float(value),
                "value_exact": f"{value.numerator}/{value.denominator}",
            }

    return edit


def judged(write: Write, factor: str, *, on: str = "planning") -> Comparison:
    """The verdict on a new plan whose objective is ``factor`` times the old one's."""
    old, new = write("old.json"), write("new.json", valued(Fraction(factor)))
    return compare(old, new, allowed=ONE, on=on)


@pytest.mark.parametrize(
    ("factor", "code"), [("1", 0), ("0.5", 0), ("1.01", 0), ("1.010001", 7), ("2", 7)]
)
def test_one_percent_is_allowed_and_not_more(
    factor: str, code: int, write: Write
) -> None:
    """Law: exact rationals decide at the border."""
    assert judged(write, factor).exit_code == code


def test_the_part_asked_for_decides(write: Write) -> None:
    """Law: --on holdout looks at unseen sequences only, both at either."""
    old = write("old.json")
    new = write("new.json", valued(Fraction(1), holdout=Fraction(2)))
    codes = [
        compare(old, new, allowed=ONE, on=on).exit_code
        for on in ("planning", "holdout", "both")
    ]
    assert codes == [0, 7, 7]
    with pytest.raises(UsageError, match="planning, holdout, both"):
        compare(old, new, allowed=ONE, on="all")


def test_a_plan_that_does_not_verify_is_exit_6(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: wrong comes before worse."""
    old, new = write("old.json"), write("new.json", valued(Fraction(2)))

    def refuse(path: object) -> None:
        raise VerificationError(["slot twice", "memory"])

    monkeypatch.setattr(pipeline, "verify", refuse)
    found = compare(old, new, allowed=ONE, on="planning")
    assert found.exit_code == 6
    text = comparison_text(found)
    assert "does not verify (2 findings)" in text
    assert "slot twice" in text


def no_cluster(data: dict[str, Any]) -> None:
    data["inputs"]["topology"]["sha256"] = "1" * 64


def no_trace(data: dict[str, Any]) -> None:
    data["inputs"]["traces"][0]["sha256"] = "1" * 64


def no_workload(data: dict[str, Any]) -> None:
    data["inputs"]["traces"][0]["workload"] = "other"


def option(name: str, value: object) -> Callable[[dict[str, Any]], None]:
    """An edit of one option."""

    def edit(data: dict[str, Any]) -> None:
        data["inputs"]["options"]["values"][name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (no_cluster, "topology (t 000000000000…, t 111111111111…)"),
        (no_trace, "trace (000000000000…, 111111111111…)"),
        (no_workload, "#other"),
        (option("traffic", "copies"), "option traffic (None, copies)"),
        (option("homes", "balanced"), "option homes"),
        (option("holdout", "0.4"), "option holdout"),
    ],
)
def test_plans_of_other_inputs_are_not_compared(
    edit: Callable[[dict[str, Any]], None], said: str, write: Write
) -> None:
    """Law: exit 3, and every difference is named."""
    with pytest.raises(ManifestError, match="same inputs") as caught:
        compare(write("old.json"), write("new.json", edit), allowed=ONE, on="planning")
    assert said in str(caught.value)
    assert caught.value.exit_code == 3


def test_other_effort_and_other_choices_are_compared(write: Write) -> None:
    """Law: a seed is no input; slots are a choice, and are reported."""

    def edit(data: dict[str, Any]) -> None:
        option("seed", 7)(data)
        option("redundant", 32)(data)

    found = compare(
        write("old.json"), write("new.json", edit), allowed=ONE, on="planning"
    )
    assert found.exit_code == 0
    assert found.chosen == ("redundant: None → 32",)


def test_two_ways_of_counting_are_warned_of(write: Write) -> None:
    """Law: a fixed plan with two values means that the planner counts otherwise."""

    def baseline(value: str) -> Callable[[dict[str, Any]], None]:
        def edit(data: dict[str, Any]) -> None:
            report = data["objective"] | {"value_exact": value}
            data["baselines"]["contiguous"] = {
                "objective": report,
                "imbalance": data["imbalance"],
            }

        return edit

    old = write("old.json", baseline("3/2"))
    same, other = write("a.json", baseline("3/2")), write("b.json", baseline("2/1"))
    for new, levels in ((same, []), (other, ["warn"])):
        found = compare(old, new, allowed=ONE, on="planning")
        yardsticks = [each.level for each in found.findings if each.rule == "yardstick"]
        assert yardsticks == levels
        assert found.exit_code == 0


def test_the_legs_that_got_slower_are_listed(write: Write) -> None:
    """Law: layer, leg, link and both times; faster legs are left out."""

    def slower(data: dict[str, Any]) -> None:
        for link in data["prediction"]["layers"][0]["busiest"]:
            link["seconds"] *= 2 if link["leg"] == "combine" else 0.5

    found = compare(
        write("old.json"), write("new.json", slower), allowed=ONE, on="planning"
    )
    (leg,) = found.legs
    assert (leg.layer, leg.leg) == (1, "combine")
    assert leg.new_seconds == 2 * leg.old_seconds
    assert "layer 1 combine" in comparison_text(found)
    assert "+100.00 %" in comparison_text(found)


def test_the_verdict_reads_the_same_everywhere(write: Write) -> None:
    """Law: text, Markdown, JUnit and GitHub tell old, new, change and limit."""
    found = judged(write, "1.05")
    told = (
        comparison_text(found),
        comparison_markdown(found),
        comparison_junit(found),
        "\n".join(comparison_annotations(found)).replace("%25", "%"),
    )
    for text in told:
        assert "+5.00 %" in text
        assert " 1.00 % allowed" in text
    tests = ElementTree.fromstring(told[2]).iter("testsuite")
    assert [suite.get("failures") for suite in tests] == ["1"]
    assert told[3].startswith("::error file=")
    assert "--max-regress 5.1%" in told[0]


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", ONE), ("0.01", ONE), ("2.5 %", Fraction(1, 40)), ("0", 0), (".5", 0.5)],
)
def test_shares_are_exact(text: str, share: object) -> None:
    """Law: percent or a share, as decimals."""
    assert parse_share(text) == share


@pytest.mark.parametrize(
    "text", ["", "one", "-1%", "101%", "1.5", "1e-2", "nan", "1%%"]
)
def test_other_shares_are_usage_errors(text: str) -> None:
    """Law: exit 2."""
    with pytest.raises(UsageError, match="max-regress"):
        parse_share(text)


@given(st.fractions(0, 1).map(lambda share: Fraction(round(share * 10**6), 10**6)))
def test_a_share_reads_back(share: Fraction) -> None:
    """Law: a decimal share, written in percent, is itself."""
    assert parse_share(f"{float(share * 100):.6f}%") == pytest.approx(float(share))
