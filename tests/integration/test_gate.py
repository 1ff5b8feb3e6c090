"""The gate as a team meets it: bench, gate, pytest; and whether it can be trusted."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.faults import FAULTS
from benchmarks.gate_faults import Change, baseline, changes, run
from planner.cli import main

Run = Callable[..., tuple[int, str, str]]
QUICK = ("cap-infeasible", "optimum-nothing-moves", "optimum-planted-loads")
SWEEP = "PLANNER_GATE_SWEEP"


@pytest.fixture
def planner(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Run ``planner`` in a folder of its own; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["planner", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        code = left.value.code
        return (0 if code is None else int(code)), out, err

    return call


@pytest.fixture
def suite(root: Path, tmp_path: Path) -> Path:
    """Return a suite of three cases that take no time."""
    folder = tmp_path / "quick" / "cases"
    folder.mkdir(parents=True)
    cases = root / "benchmarks" / "cases"
    for name in ("topologies", "models"):
        shutil.copytree(cases / name, folder / name)
    for name in QUICK:
        shutil.copy(cases / f"{name}.toml", folder)
    return folder


def edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file."""
    data = json.loads(path.read_text(encoding="utf-8"))
    edit(data)
    path.write_text(json.dumps(data), encoding="utf-8")


def better(data: dict[str, Any]) -> None:
    """Pretend that a case had reached 200 where it reaches 240."""
    data["cases"]["optimum-planted-loads"] |= {"exact": "200/1", "bound": 190.0}


def test_a_baseline_is_written_kept_and_loosened_only_with_a_reason(
    planner: Run, suite: Path, tmp_path: Path
) -> None:
    """Law: new → equal → worse blocks with exit 7 → accepted with its reason."""
    file = suite.parent / "baseline.json"
    always = ("bench", "--suite", str(suite), "--jobs", "1")
    code, out, _ = planner(*always, "--baseline", str(file), "--update-baseline")
    assert code == 0
    assert "gate open: 3 cases against the baseline: 3 new" in out
    written = file.read_bytes()

    code, out, _ = planner(*always, "--update-baseline")
    assert code == 0
    assert "3 ok" in out
    assert file.read_bytes() == written

    edited(file, better)
    code, out, _ = planner(
        *always, "--update-baseline", "--github",
        "--junit", "j.xml", "--markdown", "m.md",
    )  # fmt: skip
    assert code == 7
    assert "240 pairs is worse than 200 pairs of the baseline: +20.00 %" in out
    assert "accept: planner bench" in out
    assert "::error file=quick/cases/optimum-planted-loads.toml" in out
    failures = ElementTree.parse(tmp_path / "j.xml").getroot().iter("failure")
    assert {failure.get("type") for failure in failures} >= {"objective"}
    assert "gate closed" in (tmp_path / "m.md").read_text(encoding="utf-8")
    assert json.loads(file.read_text())["cases"]["optimum-planted-loads"]["exact"] == (
        "200/1"
    )

    name = "optimum-planted-loads"
    code, _, err = planner(*always, "--case", name, "--accept", name)
    assert code == 2
    assert "--reason" in err
    code, out, _ = planner(
        *always, "--case", name, "--accept", name, "--reason", "200 was a mistake"
    )
    assert code == 0
    (kept,) = json.loads(file.read_text())["history"]
    assert kept["reason"] == "200 was a mistake"
    assert (kept["before"]["exact"], kept["after"]["exact"]) == ("200/1", "240/1")


def test_results_say_what_ran_and_not_where(
    planner: Run, suite: Path, tmp_path: Path
) -> None:
    """Law: a line per case, a plan per case that has one, no path, JSON on stdout."""
    code, out, _ = planner(
        "bench", "--suite", str(suite), "--format", "json", "--out", "results"
    )
    assert code == 0
    assert [each["name"] for each in json.loads(out)["results"]] == list(QUICK)
    lines = (tmp_path / "results" / "results.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["schema"] == "placement-bench/1"
    assert len(lines) == 1 + len(QUICK)
    assert str(tmp_path) not in "".join(lines)
    plans = sorted(path.stem for path in (tmp_path / "results/manifests").iterdir())
    assert plans == ["optimum-nothing-moves", "optimum-planted-loads"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--suite", "nowhere"), 3),
        (("--tags", "luck"), 2),
        (("--case", "none"), 2),
        (("--baseline", "none.json"), 3),
        (("--against", "HEAD", "--update-baseline"), 2),
        (("--baseline", "none.json", "--against", "HEAD"), 2),
        (("--format", "xml"), 2),
    ],
    ids=["suite", "tags", "case", "baseline", "update", "two origins", "format"],
)
def test_what_cannot_be_asked_is_said(
    arguments: tuple[str, ...], code: int, planner: Run, suite: Path
) -> None:
    """Law: 2 for flags, 3 for files; nothing runs."""
    given = arguments if "--suite" in arguments else ("--suite", str(suite), *arguments)
    found, out, err = planner("bench", *given)
    assert (found, out) == (code, "")
    assert "error:" in err


def test_pytest_runs_a_suite(suite: Path, tmp_path: Path) -> None:
    """Law: one test per case and one for the suite; a block is a failed test."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [
        sys.executable, "-m", "pytest", "-p", "planner.bench.plugin", "-q",
        "-p", "no:cacheprovider", "--placement-suite", "cases",
    ]  # fmt: skip

    def tested(*more: str) -> tuple[int, str]:
        done = subprocess.run(
            [*command, *more],
            cwd=suite.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout

    code, out = tested()
    assert code == 0, out
    assert "4 passed" in out
    assert "gate open" in out
    entry = {"digest": "0" * 64, "outcome": "plan"}
    other = tmp_path / "other.json"
    cases = {"optimum-planted-loads": entry}
    other.write_text(json.dumps({"schema": "placement-baseline/1", "cases": cases}))
    code, out = tested("--placement-baseline", str(other))
    assert code == 1, out
    assert "1 failed, 3 passed" in out
    assert "the case is another one" in out


def test_a_plan_may_not_replace_a_better_one(planner: Run, tmp_path: Path) -> None:
    """Law: exit 7 if worse, 0 if not, 6 if wrong, 3 for another question."""
    for name, more in (
        ("eplb", ("--strategy", "eplb_domains")),
        ("plain", ("--strategy", "contiguous")),
        ("decode", ("--strategy", "contiguous", "--phase", "decode")),
    ):
        code, _, err = planner("solve", "toy-2x2", *more, "-o", f"{name}.json")
        assert code == 0, err
    code, out, _ = planner("gate", "eplb.json", "plain.json", "--max-regress", "0.1%")
    assert code == 7
    assert "gate closed: link_time (sequential) of plain.json" in out
    assert "slower on the planning part" in out
    code, out, _ = planner("gate", "plain.json", "eplb.json", "--on", "both")
    assert code == 0
    assert "gate open" in out
    code, out, err = planner("gate", "plain.json", "decode.json")
    assert (code, out) == (3, "")
    assert "option phase (prefill, decode)" in err
    edited(
        tmp_path / "eplb.json",
        lambda data: data["imbalance"].update(worst=1.0),
    )
    code, out, _ = planner("gate", "plain.json", "eplb.json", "--format", "json")
    assert code == 6
    assert json.loads(out)["open"] is False


@pytest.mark.parametrize("name", ["bytes-wrong-everywhere", "gpus-shifted"])
def test_a_seeded_fault_closes_the_gate(name: str) -> None:
    """Law: a fault that verifier and evaluator share, and one that is legal."""
    cases = ("optimum-enumerated-unequal",)
    known = baseline(cases)
    (change,) = [each for each in changes() if each.name == name]
    found = run(change, names=cases, known=known)
    assert {each.rule for each in found.blocking} & {"yardstick", "objective"}
    same = run(Change(name="as it is", about=""), names=cases, known=known)
    assert same.blocking == ()


def test_ten_faults_and_twenty_harmless_changes_are_at_hand() -> None:
    """Law: the sweep is as wide as promised, and names are unique."""
    names = [each.name for each in changes()]
    assert len(set(names)) == len(names)
    assert len(FAULTS) >= 10
    assert sum(not each.must_close for each in changes()) >= 20


@pytest.mark.slow
@pytest.mark.skipif(SWEEP not in os.environ, reason=f"minutes long; set {SWEEP}=1")
def test_every_fault_is_caught_and_nothing_else() -> None:
    """Law: all faults close the gate, no harmless change does."""
    known = baseline()
    wrong = [
        each.name
        for each in changes()
        if bool(run(each, known=known).blocking) != each.must_close
    ]
    assert wrong == []
