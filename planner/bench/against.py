"""Another revision of the planner, checked out beside this one for a while."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from planner.bench.pool import source_root
from planner.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A checked-out revision: its folder, and how a reader calls it."""

    root: Path
    name: str


@contextmanager
def checked_out(ref: str, *, source: Path | None = None) -> Iterator[Revision]:
    """Check out ``ref`` into a git worktree of its own; it goes when done.

    Parameters
    ----------
    source
        A folder of the repository; default: that of the running planner.

    Raises
    ------
    UsageError
        If there is no repository, no such revision, or no planner in it.
    """
    repository = source or source_root()
    commit = _git(repository, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if commit is None:
        raise UsageError(
            f"--against {ref}: no such revision in {repository}; run from a checkout "
            "of the planner, and git fetch the revision first"
        )
    with tempfile.TemporaryDirectory(prefix="planner-against-") as folder:
        root = Path(folder) / "planner"
        made = _git(repository, "worktree", "add", "--detach", str(root), commit)
        if made is None:
            raise UsageError(f"--against {ref}: git worktree add failed in {folder}")
        try:
            if not (root / "planner" / "__init__.py").is_file():
                raise UsageError(f"--against {ref}: holds no planner")
            yield Revision(root=root, name=f"{ref} ({commit[:10]})")
        finally:
            _git(repository, "worktree", "remove", "--force", str(root))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git prints, None if it fails."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError("--against needs git") from None
    return done.stdout.strip() if done.returncode == 0 else None
