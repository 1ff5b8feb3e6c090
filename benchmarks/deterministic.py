"""``--deterministic``: the same manifest, byte for byte, whatever should not matter.

    python -m benchmarks.deterministic [--strategy NAME ...] [--runs 20] [--seconds 3]

Plans one problem per strategy again and again, each time in a new process, under
another ``PYTHONHASHSEED``, with ``--threads`` 1 and 2 in turn and with the keys of the
input document in another order, and compares the manifests' bytes. Prints how many of
the runs agree with the first; exits with 1 if one does not.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.bundled import folder

CASES: dict[str, dict[str, Any]] = {
    "auto": {"phase": "decode", "redundant": "4"},
    "balance": {
        "phase": "decode",
        "objective": "gpu_tokens",
        "selection": "even",
        "redundant": "4",
    },
    "fast": {"phase": "decode", "redundant": "4"},
    "flow": {"traffic": "direct"},
    "matching": {"traffic": "copies"},
    "milp": {"phase": "decode"},
    "priced": {"phase": "decode", "selection": "weighted", "redundant": "8"},
    "search": {"phase": "prefill", "redundant": "4"},
    "single": {"traffic": "copies", "policy": "one_expert_per_gpu_total"},
}
"""What is planned by each strategy."""
TOPOLOGY = {
    "matching": "h100-40x8-rail",
    "priced": "dgx-h100-1",
    "single": "h100-40x8-rail",
}
"""Where; on the toy cluster unless named here."""
SPEEDS = {"profile": "h100-sxm-80g", "nvlink": {"bandwidth_gbs": 450, "cables": 18}}
BUILT: dict[str, dict[str, Any]] = {
    "matching": {"kind": "single_node", "gpus_per_node": 64, **SPEEDS},
    "single": {
        "kind": "rail_fat_tree",
        "nodes": 60,
        "gpus_per_node": 8,
        "pcie_gbs": 64,
        "nic_gbs": 50,
        "link": "ib",
        "su_nodes": 20,
        "ports": 64,
        "spines": 10,
        "uplink_cables": 2,
        **SPEEDS,
    },
}
"""… with as many GPUs in a box as experts; with one for every expert of every layer."""
SOLVE = """
import json, sys
from planner import pipeline
from planner.manifest import write_manifest
from planner.options import SolveOptions
from pathlib import Path
job = json.load(sys.stdin)
manifest = pipeline.solve(job["topology"], options=SolveOptions(**job["options"]))
write_manifest(manifest, Path(job["path"]))
"""
LONGEST = 600.0


def main() -> int:
    """Print a line per strategy; return 1 if manifests differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--strategy", action="append", choices=sorted(CASES))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    failed = False
    for strategy in given.strategy or sorted(CASES):
        digests = [
            manifest_digest(strategy, run, given.seconds, Path.cwd())
            for run in range(given.runs)
        ]
        alike = digests.count(digests[0])
        failed = failed or alike < given.runs
        print(f"{strategy}: {alike}/{given.runs} byte-identical", flush=True)
    return int(failed)


def problem(strategy: str) -> dict[str, Any]:
    """Return the cluster that is planned by a strategy."""
    name = TOPOLOGY.get(strategy, "toy-2x2")
    text = (folder("topologies") / f"{name}.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    document |= {"generator": BUILT[strategy]} if strategy in BUILT else {}
    return document


def manifest_digest(strategy: str, run: int, seconds: float, work_in: Path) -> str:
    """Return the SHA-256 of the manifest that run number ``run`` writes."""
    document = problem(strategy)
    path = work_in / f".deterministic-{os.getpid()}-{run}.json"
    job = {
        "topology": shuffled(document, random.Random(run)) if run else document,
        "options": CASES[strategy]
        | {
            "strategy": strategy,
            "time_limit": seconds,
            "threads": 1 + run % 2,
            "deterministic": True,
        },
        "path": str(path),
    }
    environment = os.environ | {"PYTHONHASHSEED": str(run)}
    try:
        subprocess.run(
            [sys.executable, "-c", SOLVE],
            input=json.dumps(job),
            text=True,
            check=True,
            env=environment,
            cwd=work_in,
            timeout=LONGEST,
        )
        return hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        path.unlink(missing_ok=True)


def shuffled(value: Any, rng: random.Random) -> Any:
    """Return the same JSON value with the keys of every object in another order."""
    if isinstance(value, Mapping):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    if isinstance(value, list):
        return [shuffled(each, rng) for each in value]
    return value


if __name__ == "__main__":
    sys.exit(main())
