"""A manifest that says nothing but the truth, and where its inputs are."""

from pathlib import Path

import pytest

from tests.oracles.valid_plan import valid_plan
from tests.unit.verifier.lies import Data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the inputs that all manifests here name."""
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def true_plan(folder: Path) -> Data:
    """Return a manifest that says nothing but the truth."""
    return valid_plan(folder)
