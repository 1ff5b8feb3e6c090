"""The wheel, alone, in an environment without the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LARGEST_WHEEL = 12 * 2**20
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with what the environment has; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run(
        [*command, "--outdir", str(folder), str(ROOT)], check=True, capture_output=True
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an empty folder, without its dependencies."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run(
        [*command, "--no-index", "--target", str(target), str(wheel)], check=True
    )
    return target


def run_planner(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run the installed command from ``cwd``; the checkout is not importable."""
    # The dependencies are those of the test environment. A checkout installed
    # there as editable is hidden: the wheel's folder comes first on the path.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }
    script = installed / "bin" / "planner"
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_carries_code_data_and_licence(wheel: Path) -> None:
    """Law: topologies, the tiny model, its trace and the licence are inside."""
    assert wheel.stat().st_size < LARGEST_WHEEL
    names = zipfile.ZipFile(wheel).namelist()
    for expected in (
        "planner/_data/topologies/h100-4x8-rail.json",
        "planner/_data/tiny_moe/tiny-moe.parquet",
        "planner/_data/tiny_moe/tiny-moe.npz",
        "api/app.py",
    ):
        assert expected in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "examples/")) for name in names)


def test_the_wheel_knows_its_version(installed: Path, tmp_path: Path) -> None:
    """Law: the command of the wheel runs from any folder."""
    from planner import __version__

    assert __version__ in run_planner(installed, tmp_path, "--version")


def test_the_wheel_plans_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """Law: ``planner solve h100-4x8-rail`` needs nothing but the wheel."""
    plan = tmp_path / "plan.json"
    options = ("--strategy", "round_robin", "--time-limit", "2")
    run_planner(
        installed, tmp_path, "solve", "h100-4x8-rail", *options, "-o", str(plan)
    )
    manifest = json.loads(plan.read_text())
    assert manifest["schema"] == "moe-plan/1"
    assert len(manifest["gpus"]) == 32
    run_planner(installed, tmp_path, "verify", str(plan))
