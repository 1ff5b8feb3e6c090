"""Another revision is checked out beside, and goes again."""

import subprocess
from pathlib import Path

import pytest

from planner.bench.against import checked_out
from planner.errors import UsageError


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder as nobody in particular."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with a planner in its second revision only."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "README").write_text("first")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    (folder / "planner").mkdir()
    (folder / "planner" / "__init__.py").write_text("second = True")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "second")
    return folder


def test_a_revision_is_there_for_a_while(repository: Path) -> None:
    """Law: its files while it lasts, no worktree afterwards; changes stay out."""
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "planner" / "__init__.py").write_text("changed = True")
    with checked_out("HEAD", source=repository) as revision:
        text = (revision.root / "planner" / "__init__.py").read_text()
        assert text == "second = True"
        assert revision.name == f"HEAD ({commit[:10]})"
        root = revision.root
    assert not root.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


@pytest.mark.parametrize(
    ("ref", "said"), [("none", "no such revision"), ("HEAD~1", "holds no planner")]
)
def test_what_cannot_be_compared_with_is_a_usage_error(
    ref: str, said: str, repository: Path
) -> None:
    """Law: exit 2, and nothing is left behind."""
    with pytest.raises(UsageError, match=said), checked_out(ref, source=repository):
        pass
    assert git(repository, "worktree", "list").count("\n") == 0


def test_outside_a_repository_is_a_usage_error(tmp_path: Path) -> None:
    """Law: the message says where to run it."""
    with (
        pytest.raises(UsageError, match="from a checkout"),
        checked_out("HEAD", source=tmp_path),
    ):
        pass
