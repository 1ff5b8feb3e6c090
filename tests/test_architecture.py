"""The house keeps its own rules: contracts, public surface, sizes."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import planner
from planner import errors

SOURCES = ("planner", "api")
LONGEST_FILE, LONGEST_FUNCTION = 500, 60


def sources(root: Path) -> list[Path]:
    """Return every source file of the library and the service."""
    return [path for name in SOURCES for path in sorted((root / name).rglob("*.py"))]


def run(code: str, root: Path) -> str:
    """Return what a fresh interpreter prints for ``code``."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    return done.stdout.strip()


def test_import_contracts_are_kept(root: Path) -> None:
    """Law: nobody imports what the contracts of pyproject.toml forbid."""
    code = (
        "import sys; from importlinter.cli import lint_imports; "
        "sys.exit(lint_imports(no_cache=True))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_name_can_be_used() -> None:
    """Law: what ``planner.__all__`` promises is there and is documented."""
    for name in planner.__all__:
        found = getattr(planner, name)
        assert name == "__version__" or inspect.getdoc(found), name
    assert set(dir(planner)) == set(planner.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """Law: the lazy package still says no."""
    with pytest.raises(AttributeError, match="nonsense"):
        planner.nonsense  # noqa: B018


def test_importing_the_errors_loads_no_solver(root: Path) -> None:
    """Law: the package is lazy; errors cost nothing."""
    code = (
        "import sys, planner.errors; "
        "print([m for m in ('ortools', 'numba', 'torch') if m in sys.modules])"
    )
    assert run(code, root) == "[]"


def test_planning_needs_no_torch(root: Path) -> None:
    """Law: the pipeline is importable and loads without torch."""
    code = "import sys, planner.pipeline; print('torch' in sys.modules)"
    assert run(code, root) == "False"


def test_the_drawn_error_tree_is_the_class_tree() -> None:
    """Law: the tree in the docstring of ``planner.errors`` is the real one."""
    drawn = _drawn_tree(errors.__doc__ or "")
    real = {
        name: cls.__mro__[1].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.PlannerError) and cls is not errors.PlannerError
    }
    assert drawn == real


def test_the_drawn_codes_are_the_classes_codes() -> None:
    """Law: exit codes and statuses in the docstring are those of the classes."""
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("│", " ").split()
        numbers = [word for word in words if word.isdigit()]
        if len(numbers) >= 2:
            name = next(word for word in words if word.isidentifier())
            cls = getattr(errors, name)
            assert numbers[:2] == [str(cls.exit_code), str(cls.http_status)], name


def _drawn_tree(text: str) -> dict[str, str]:
    """Return child -> parent of a tree drawn with box characters."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        bare = line.lstrip(" │├└─")
        name = bare.split(" ")[0]
        if not name.isidentifier() or not hasattr(errors, name):
            continue
        depth = len(line) - len(bare)
        while path and path[-1][0] >= depth:
            path.pop()
        if path:
            parents[name] = path[-1][1]
        path.append((depth, name))
    return parents


def test_no_file_is_too_long(root: Path) -> None:
    """Law: one concept per file."""
    lengths = {path: len(path.read_text().splitlines()) for path in sources(root)}
    assert {p: n for p, n in lengths.items() if n > LONGEST_FILE} == {}


def test_no_function_is_too_long(root: Path) -> None:
    """Law: no function body of more than 60 lines, docstring aside."""
    long = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
                    if lines > LONGEST_FUNCTION:
                        long.append(f"{path.name}:{node.name} has {lines} lines")
    assert long == []


def test_every_module_says_what_it_is(root: Path) -> None:
    """Law: a module opens with a docstring."""
    silent = [
        path
        for path in sources(root)
        if path.read_text().strip()
        and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_nothing_executes_data(root: Path) -> None:
    """Law: no pickle, no eval, no unsafe load anywhere."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in sources(root)
        for node in ast.walk(ast.parse(path.read_text()))
        if _executes_data(node)
    ]
    assert found == []


def _executes_data(node: ast.AST) -> bool:
    """Tell whether a node imports pickle, evaluates text or loads objects."""
    if isinstance(node, ast.Import):
        return any(alias.name == "pickle" for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module == "pickle"
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
        return True
    given = {keyword.arg: keyword.value for keyword in node.keywords}
    pickled = given.get("allow_pickle")
    if isinstance(pickled, ast.Constant) and pickled.value is True:
        return True
    return ast.unparse(node.func) == "torch.load" and "weights_only" not in given


def test_strategies_read_no_clock_but_the_one_in_force(root: Path) -> None:
    """Law: what reads the wall's clock cannot be the same twice."""
    read = re.compile(r"^\s*(import time|from time import|import datetime)\b", re.M)
    folders = ("strategies", "formulation", "evaluator")
    files = [f for name in folders for f in (root / "planner" / name).rglob("*.py")]
    assert files
    assert [str(f) for f in files if read.search(f.read_text())] == []
