"""Do the four counts agree? Every mode and selection, one trace, one cluster.

``python -m benchmarks.agreement TOPOLOGY [TRACE]`` plans (EPLB, half as many redundant
slots as GPUs allow evenly), then verifies (witness), and replays by the counter and,
where torch is installed, by moving tensors: each compares every GPU pair and link
numerator of every layer with the evaluator's prediction. Prints one line per case.
"""

import sys
import tempfile
import time
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import planner
from planner.manifest import write_manifest
from planner.options import SolveOptions
from planner.topology.schema import load_topology

MODES = ("copies", "dedup_gpu", "dedup_domain")
SELECTIONS = ("nearest", "even", "weighted")


def main(topology: str, trace: str | None) -> None:
    """Run all nine cases; an exception means that two counts differ."""
    gpus = load_topology(topology).gpu_count
    executors = ["counter", *(["local"] if find_spec("torch") else [])]
    with tempfile.TemporaryDirectory() as folder:
        for traffic, selection in product(MODES, SELECTIONS):
            begun = time.perf_counter()
            options = SolveOptions(
                traffic=traffic,
                selection=selection,
                strategy="eplb_global",
                redundant=str(gpus),
            )
            base = Path(folder)
            manifest = planner.solve(topology, trace=trace, options=options, base=base)
            path = base / "plan.json"
            write_manifest(manifest, path)
            compared = planner.verify(path).comparisons
            errors = []
            for executor in executors:
                report = planner.replay(path, executor=executor, gating="forced")
                errors += [part.max_relative_error or 0.0 for part in report.parts]
            print(
                f"{traffic:13}{selection:9} agree: {compared:,} comparisons, "
                f"replayed by {' and '.join(executors)}, outputs within "
                f"{max(errors):.1e}, {time.perf_counter() - begun:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
