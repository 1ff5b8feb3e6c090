"""The pages keep up with the program: every member of every family is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from api.app import ROUTERS
from planner import bundled
from planner.cli.main import app
from planner.exporters.base import EXPORTERS
from planner.strategies.base import STRATEGIES
from planner.strategies.baselines.base import BASELINES


@pytest.fixture(scope="module")
def pages(root: Path) -> str:
    """Return README and all pages of docs as one text."""
    files = [root / "README.md", *sorted((root / "docs").rglob("*.md"))]
    return "\n".join(path.read_text() for path in files)


def verbs() -> list[str]:
    """Return every verb of the command line, as typed."""
    found = []

    def walk(command: object, prefix: str) -> None:
        for name, sub in getattr(command, "commands", {}).items():
            if getattr(sub, "commands", None):
                walk(sub, f"{prefix} {name}")
            else:
                found.append(f"{prefix} {name}")

    walk(typer.main.get_command(app), "planner")
    return found


def test_every_verb_is_in_the_pages(pages: str) -> None:
    """Law: a verb that no page names does not exist for a reader."""
    assert len(verbs()) >= 8
    assert [verb for verb in verbs() if verb not in pages] == []


def test_every_strategy_and_baseline_is_in_the_pages(pages: str) -> None:
    """Law: the registry and the pages name the same strategies."""
    names = [*STRATEGIES.names(), *BASELINES.names()]
    assert names
    assert [name for name in names if f"`{name}`" not in pages] == []


def test_every_exporter_is_in_the_pages(pages: str) -> None:
    """Law: every engine file that can be written is named."""
    assert EXPORTERS.names()
    for name in EXPORTERS.names():
        assert f"--to {name}" in pages


def test_every_route_is_in_the_pages(pages: str) -> None:
    """Law: every route is named with its method."""
    routes = [
        f"{method} {route.path}"
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    ]
    assert [route for route in routes if f"`{route}`" not in pages] == []


def test_every_bundled_topology_is_in_the_pages(pages: str) -> None:
    """Law: what ships is named."""
    assert [name for name in bundled.topology_names() if f"`{name}`" not in pages] == []


def test_links_between_pages_lead_somewhere(root: Path) -> None:
    """Law: a relative link names a file that exists."""
    broken = []
    for page in [*root.glob("*.md"), *(root / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


@pytest.mark.slow
def test_the_python_blocks_of_the_readme_run(root: Path, tmp_path: Path) -> None:
    """Law: what the README shows in Python is Python that works."""
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_the_changelog_names_this_version(root: Path) -> None:
    """Law: a version is released with its notes."""
    from planner import __version__

    assert f"## [{__version__}]" in (root / "CHANGELOG.md").read_text()
