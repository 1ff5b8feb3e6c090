"""The reports: one verdict, five readers."""

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from planner.bench.findings import Finding, amount, percent
from planner.bench.machine import this_machine
from planner.bench.reports.github import annotation, annotations
from planner.bench.reports.junit import junit
from planner.bench.reports.layers import layers_csv
from planner.bench.reports.markdown import markdown
from planner.bench.reports.table import case_lines, table
from planner.bench.result import Layer
from planner.bench.rules import FAMILIES, RULES
from planner.bench.suite import DEFAULT_SUITE
from planner.bench.verdict import Verdict, reached_verdict
from tests.unit.bench.made import before, result


def verdict(*, baseline: Path | None = Path("other/b.json")) -> Verdict:
    """Three cases: one as before, one worse, one better; and a removed one."""
    results = (result(name="same"), result(110, name="worse"), result(90, name="fine"))
    old: dict[str, Any] = {name: before() for name in ("same", "worse", "fine")}
    return Verdict(
        results=results,
        findings=reached_verdict(results, old, removed=["gone"], origin="the baseline"),
        machine=this_machine(),
        origin="the baseline",
        before=old,
        files={each.name: Path(f"cases/{each.name}.toml") for each in results},
        suite=Path("cases"),
        baseline=baseline,
    )


def test_the_table_has_a_line_per_case() -> None:
    """Law: word, case, value, change; columns line up."""
    lines = case_lines(verdict())
    assert [line.split()[:2] for line in lines[1:]] == [
        ["ok", "same"],
        ["BLOCK", "worse"],
        ["better", "fine"],
    ]
    assert "110 pairs" in lines[2]
    assert "+10.00 %" in lines[2]
    assert len({line.index("pairs") for line in lines[1:]}) == 1


def test_what_blocks_comes_with_why_and_what_to_do() -> None:
    """Law: by how much, why, how to run it again, how to accept it."""
    text = table(verdict())
    for part in (
        "objective: 110 pairs is worse than 100 pairs of the baseline: +10.00 %",
        "why: ",
        "again:  planner bench --suite cases --baseline other/b.json --case worse\n",
        "accept: planner bench --suite cases --baseline other/b.json --case worse "
        '--accept worse --reason "…"',
        "gate closed: 3 cases against the baseline: 1 ok, 1 better, 1 BLOCK",
    ):
        assert part in text
    assert text.index("block  objective") < text.index("gain   objective")


def test_without_a_baseline_nothing_can_be_accepted() -> None:
    """Law: the way out is only offered where there is one."""
    assert "there is no baseline" in table(verdict(baseline=None))


def test_a_wrong_plan_cannot_be_accepted() -> None:
    """Law: verified, truth, question and eplb are not a matter of taste."""
    wrong = result(findings=("slot twice",), name="worse")
    found = reached_verdict([wrong], {"worse": before()}, origin="the baseline")
    told = Verdict(
        results=(wrong,),
        findings=found,
        machine=this_machine(),
        origin="the baseline",
        before={"worse": before()},
        files={},
        suite=Path("cases"),
        baseline=Path("other/b.json"),
    )
    assert "not possible: the plan is wrong" in table(told)
    assert "--accept" not in table(told)


def test_junit_has_a_test_per_case_and_rule() -> None:
    """Law: cases × families + 1 for the suite; failures are the blocks."""
    root = ElementTree.fromstring(junit(verdict()))
    (suite,) = root.iter("testsuite")
    assert suite.get("tests") == str(3 * len(FAMILIES) + 1)
    assert suite.get("failures") == "1"
    (failed,) = [test for test in suite if test.find("failure") is not None]
    assert failed.get("classname") == "placement.worse"
    assert failed.get("name") == "objective"


def test_every_rule_has_a_family_in_junit() -> None:
    """Law: no finding about a case is lost on the way to JUnit."""
    rules = {each.rule for each in verdict().findings if each.case}
    assert rules <= {*FAMILIES, "baseline"}
    assert len(FAMILIES) >= len(RULES)


def test_github_marks_the_case_file() -> None:
    """Law: errors for blocks, warnings for warns, nothing for the rest."""
    lines = annotations(verdict())
    assert [line.split(" ")[0] for line in lines] == ["::error", "::warning"]
    assert "file=cases/worse.toml,line=1,title=worse objective::110 pairs" in lines[0]


def test_github_text_is_escaped() -> None:
    """Law: percent signs and line feeds cannot end or forge a command."""
    finding = Finding(
        case="a,b:c", rule="truth", level="block", text="5 %\n::error::x", why="w"
    )
    line = annotation(finding, None)
    assert "\n" not in line
    assert "title=a%2Cb%3Ac truth::5 %25%0A::error::x%0Aw" in line


def test_markdown_has_the_verdict_first_and_the_table() -> None:
    """Law: a reader of a pull request sees closed, why, and the cases."""
    lines = markdown(verdict()).splitlines()
    assert lines[0].startswith("### Placement quality: gate closed")
    assert any(line.startswith("- ❌ `worse` **objective**") for line in lines)
    assert sum(line.startswith("| ") for line in lines) == 4


def test_the_csv_has_a_row_per_link() -> None:
    """Law: the case's name, then the fields of a layer."""
    layer = Layer(
        layer=3,
        leg="dispatch",
        link_class="ib:nic>switch0",
        link="a -> b",
        tokens=1,
        bytes=2,
        seconds=3,
        imbalance=1,
        domain_imbalance=1,
        origin="milp",
    )
    text = layers_csv([result(layers=(layer, layer)), result(outcome="no_plan")])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2
    assert (rows[0]["case"], rows[0]["link"]) == ("case", "a -> b")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "s", "0 µs"),
        (1.5, "s", "1.5 s"),
        (0.00125, "s", "1.25 ms"),
        (3.1288888e-6, "s", "3.1289 µs"),
        (1234567, "tokens", "1.23457e+06 tokens"),
        (240, "pairs", "240 pairs"),
    ],
)
def test_amounts_are_readable(value: float, unit: str, text: str) -> None:
    """Law: three to five digits and a unit a person would choose."""
    assert amount(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1, "+10.00 %"), (-0.005, "-0.50 %"), (0.00001, "+0.0010 %"), (0, "+0.00 %")],
)
def test_small_changes_are_not_rounded_away(value: float, text: str) -> None:
    """Law: a change that is there is seen."""
    assert percent(value) == text


def test_commands_leave_out_what_is_the_default() -> None:
    """Law: the suite and baseline of a checkout need not be named."""
    usual = replace(
        verdict(), suite=DEFAULT_SUITE, baseline=DEFAULT_SUITE.parent / "baseline.json"
    )
    assert "again:  planner bench --case worse\n" in table(usual)
