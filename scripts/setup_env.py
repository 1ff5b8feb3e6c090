"""Make the environment ``.venv``: create it, install the planner, decide on torch.

Needs nothing but the standard library. Says what it does, does it once (a stamp
in the environment remembers), and never pulls in torch's CUDA packages unasked:
a dry run looks first at what ``pip`` would install.

    python3 scripts/setup_env.py [--torch skip|any] [--torch-index URL]
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "planner-setup.json"
TORCH = "torch==2.13.0"
CUDA_PREFIXES = ("nvidia-", "cuda-", "triton", "pytorch-triton")
CHOICES = ("", "skip", "any")
WAYS_TO_TORCH = (
    "make demo TORCH_INDEX=<URL of a package index with CPU wheels of torch>",
    "make demo TORCH=any   (the default build, several GB on Linux)",
)


def say(text: str) -> None:
    """Print one wrapped message."""
    lines = textwrap.wrap(f"set-up: {text}", 86, break_on_hyphens=False)
    print("\n  ".join(lines), flush=True)


def stop(text: str) -> None:
    """Print the message and leave with status 1."""
    say(text)
    sys.exit(1)


def pip(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the environment's pip with its output captured."""
    command = [str(PYTHON), "-m", "pip", *arguments, "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def last_error(run: "subprocess.CompletedProcess[str]") -> str:
    """Return the last line in which pip says what went wrong."""
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["pip gave no reason"])[-1]


def create_venv() -> None:
    """Create ``.venv`` unless it works already."""
    if PYTHON.exists() and pip("--version").returncode == 0:
        return
    missing = [
        name for name in ("venv", "ensurepip") if not importlib.util.find_spec(name)
    ]
    if missing:
        stop(
            f"{sys.executable} has no module {' and '.join(missing)}, so it cannot "
            "make an environment. On Debian and Ubuntu: apt-get install python3-venv. "
            "Or name another interpreter: make demo PYTHON=/path/to/python3"
        )
    say(f"creating .venv with Python {sys.version.split()[0]}")
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        stop(f"the environment could not be made: {(run.stderr or run.stdout).strip()}")


def install_planner() -> None:
    """Install the planner (editable) with its development tools."""
    say(
        "installing the planner, its dependencies (ortools, networkx, numpy, numba, "
        "pydantic, typer, rich, fastapi, uvicorn, pyarrow) and its tools (pytest, "
        "hypothesis, ruff, mypy, import-linter); about 300 MB, a minute or two"
    )
    report = VENV / "planner-install.json"
    started = time.monotonic()
    run = pip("install", "--quiet", "--report", str(report), "-e", f"{ROOT}[dev]")
    if run.returncode:
        stop(f"pip failed: {last_error(run)}")
    names = [f"{name} {version}" for name, version in planned(report.read_text())]
    say(f"installed in {time.monotonic() - started:.0f} s: {', '.join(names)}")


def planned(report: str) -> list[tuple[str, str]]:
    """Return (name, version) of everything in a report of ``pip install``."""
    entries = json.loads(report)["install"]
    found = [entry["metadata"] for entry in entries]
    return sorted((normal(meta["name"]), meta["version"]) for meta in found)


def normal(name: str) -> str:
    """Return the name of a distribution in one spelling."""
    return name.lower().replace("_", "-")


def cuda_packages(names: list[str]) -> list[str]:
    """Return those of ``names`` that only a CUDA build of torch needs."""
    return [name for name in names if name.startswith(CUDA_PREFIXES)]


def install_torch(choice: str, index: str) -> str:
    """Install torch where that is asked for or small; return what happened."""
    if choice == "skip":
        return "skipped as asked (TORCH=skip)"
    source = ["--index-url", index] if index else []
    say(f"looking what 'pip install {TORCH}' would bring (dry run)")
    look = pip("install", "--dry-run", "--quiet", "--report", "-", *source, TORCH)
    if look.returncode:
        return f"not installed: {last_error(look)}"
    packages = planned(look.stdout)
    if not packages:
        return "already installed"
    cuda = cuda_packages([name for name, _ in packages])
    if cuda and choice != "any":
        return f"not installed: CUDA packages would come: {', '.join(cuda)}"
    names = ", ".join(f"{name} {version}" for name, version in packages)
    say(f"installing {names}")
    run = pip("install", "--quiet", *source, TORCH)
    if run.returncode:
        return f"not installed: {last_error(run)}"
    return f"installed: {names}"


def installed_names() -> list[str]:
    """Return the names of all distributions in the environment."""
    run = pip("list", "--format", "json")
    return [normal(entry["name"]) for entry in json.loads(run.stdout)]


def check_environment(choice: str) -> bool:
    """Refuse CUDA packages that nobody asked for; return whether torch is there."""
    names = installed_names()
    cuda = cuda_packages(names)
    if cuda and choice != "any":
        stop(
            f"CUDA packages are in .venv though nobody asked for them: "
            f"{', '.join(cuda)}. Remove .venv and run again, or say TORCH=any"
        )
    return "torch" in names


def fingerprint() -> str:
    """Return a digest of all that decides what is installed."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), Path(__file__).read_bytes()]
    return hashlib.sha256(b"\0".join([*parts, str(ROOT).encode()])).hexdigest()


def up_to_date(choice: str, index: str) -> bool:
    """Tell whether the stamp is of this set-up; no wish about torch fits any."""
    if not (STAMP.exists() and PYTHON.exists()):
        return False
    stamp = json.loads(STAMP.read_text())
    asked = {"torch": choice, "torch_index": index}
    same_torch = asked == {key: stamp.get(key) for key in asked}
    return stamp["fingerprint"] == fingerprint() and (
        same_torch or not (choice or index)
    )


def main() -> None:
    """Make the environment, or say that it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", default="", choices=CHOICES)
    parser.add_argument("--torch-index", default="")
    asked = parser.parse_args()
    if up_to_date(asked.torch, asked.torch_index):
        stamp = json.loads(STAMP.read_text())
        say(
            f".venv is up to date (torch {'there' if stamp['has_torch'] else 'absent'})"
        )
        return
    create_venv()
    install_planner()
    say(f"torch: {install_torch(asked.torch, asked.torch_index)}")
    has_torch = check_environment(asked.torch)
    if not has_torch:
        say(
            "without torch everything works but the tensor executor; the counter "
            "replays instead. Ways to have it:"
        )
        print(textwrap.indent("\n".join(WAYS_TO_TORCH), "    "))
    stamp = {
        "fingerprint": fingerprint(),
        "has_torch": has_torch,
        "torch": asked.torch,
        "torch_index": asked.torch_index,
    }
    STAMP.write_text(json.dumps(stamp, indent=1) + "\n")
    say("done")


if __name__ == "__main__":
    main()
