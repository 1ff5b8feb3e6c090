"""Fixtures of the whole suite: the data that is not in the repository."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Several test processes share few cores: one thread each, or they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent

# A machine under load is slow, not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of shared data; skip where it is absent."""
    default = ROOT.parent / "shared" / "data"
    folder = Path(os.environ.get("PLANNER_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip("no shared data; name its folder in PLANNER_SHARED_DATA")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where torch finds none."""
    if item.get_closest_marker("gpu") is None:
        return
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
