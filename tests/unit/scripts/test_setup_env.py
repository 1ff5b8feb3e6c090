"""Set-up's decision about torch, with a ``pip`` that only pretends."""

import importlib.util
import json
import subprocess
from pathlib import Path
from types import ModuleType

import pytest


class FakePip:
    """Plans the same packages for every dry run and keeps the commands."""

    def __init__(self, planned: list[str], *, fails: bool = False) -> None:
        self.planned, self.fails = planned, fails
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        self.commands.append(arguments)
        if self.fails:
            reason = "ERROR: No matching distribution found"
            return subprocess.CompletedProcess(arguments, 1, "", reason)
        entries = [{"metadata": {"name": n, "version": "1"}} for n in self.planned]
        return subprocess.CompletedProcess(
            arguments, 0, json.dumps({"install": entries}), ""
        )

    @property
    def installs(self) -> list[tuple[str, ...]]:
        """Return the commands that would have changed the environment."""
        return [command for command in self.commands if "--dry-run" not in command]


@pytest.fixture
def setup_env(root: Path) -> ModuleType:
    """Return the script as a module."""
    path = root / "scripts" / "setup_env.py"
    spec = importlib.util.spec_from_file_location("setup_env", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CPU = ["torch", "sympy", "filelock"]
CUDA = [*CPU, "nvidia-cublas-cu13", "triton"]


@pytest.mark.parametrize("extra", ["nvidia-cublas-cu13", "triton", "NVIDIA_nccl_cu13"])
def test_torch_is_not_installed_where_cuda_packages_would_come(
    extra: str, setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: after a dry run that names a CUDA package nothing is installed."""
    pip = FakePip([*CPU, extra])
    monkeypatch.setattr(setup_env, "pip", pip)
    outcome = setup_env.install_torch("", "")
    assert outcome.startswith("not installed: CUDA packages would come")
    assert len(pip.commands) == 1
    assert pip.installs == []


@pytest.mark.parametrize(
    ("planned", "choice", "index"),
    [
        (CPU, "", ""),
        (CPU, "", "https://wheels.example/cpu"),
        (CUDA, "any", ""),
    ],
)
def test_torch_is_installed_by_exact_version_after_a_look(
    planned: list[str],
    choice: str,
    index: str,
    setup_env: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Law: a look comes first, the version is pinned, the index is the one named."""
    pip = FakePip(planned)
    monkeypatch.setattr(setup_env, "pip", pip)
    assert setup_env.install_torch(choice, index).startswith("installed")
    assert "--dry-run" in pip.commands[0]
    (install,) = pip.installs
    assert install[-1] == "torch==2.13.0"
    assert (index in install) == bool(index)


def test_skip_asks_no_index(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: TORCH=skip does not even look."""
    pip = FakePip(CPU)
    monkeypatch.setattr(setup_env, "pip", pip)
    assert "skipped" in setup_env.install_torch("skip", "")
    assert pip.commands == []


def test_a_failed_look_is_reported_and_nothing_is_installed(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: without torch set-up goes on, and says why."""
    pip = FakePip([], fails=True)
    monkeypatch.setattr(setup_env, "pip", pip)
    assert "No matching distribution" in setup_env.install_torch("", "")
    assert pip.installs == []


def test_torch_that_is_there_is_left_alone(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: set-up is idempotent."""
    pip = FakePip([])
    monkeypatch.setattr(setup_env, "pip", pip)
    assert setup_env.install_torch("", "") == "already installed"
    assert pip.installs == []


def test_cuda_packages_that_nobody_asked_for_stop_the_set_up(
    setup_env: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: the environment is looked at after the installation too."""
    monkeypatch.setattr(setup_env, "installed_names", lambda: CUDA)
    with pytest.raises(SystemExit):
        setup_env.check_environment("")
    assert setup_env.check_environment("any")
    monkeypatch.setattr(setup_env, "installed_names", lambda: ["numpy"])
    assert not setup_env.check_environment("")
