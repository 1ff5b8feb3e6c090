"""The examples run as written, and say what they claim to show."""

import runpy
from pathlib import Path

import pytest


def load(root: Path, name: str) -> dict[str, object]:
    return runpy.run_path(str(root / "examples" / name))


def test_plan_then_verify_and_replay(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """01 writes a manifest; 02 checks it, replays it and catches a forgery."""
    plan = load(root, "01_plan.py")["main"](tmp_path / "out", 2.0)  # type: ignore[operator]
    assert "on unseen sequences" in capsys.readouterr().out
    load(root, "02_verify_and_replay.py")["main"](plan)  # type: ignore[operator]
    shown = capsys.readouterr().out
    assert "moved as predicted" in shown
    assert "a forged value is caught" in shown


def test_a_cluster_of_ones_own(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """03: slower network cards cost time on the busiest link."""
    load(root, "03_own_cluster.py")["main"](1.0)  # type: ignore[operator]
    equal, unequal = capsys.readouterr().out.splitlines()
    value = [float(line.split("take ")[1].split(" ms")[0]) for line in (equal, unequal)]
    assert value[1] > value[0]


def test_training_on_two_ranks(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """04: two ranks learn what one would, and stay replicas to the bit."""
    pytest.importorskip("torch")
    load(root, "04_train_in_parallel.py")["main"](12)  # type: ignore[operator]
    losses, replicas = capsys.readouterr().out.splitlines()
    before, after = losses.split(";")[0].removeprefix("loss ").split(" -> ")
    assert float(after) < float(before)
    assert float(losses.split("within ")[1]) < 1e-5
    assert replicas == "replicas identical to the bit: True"
