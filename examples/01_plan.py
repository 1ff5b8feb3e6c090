"""Plan the bundled model on a bundled cluster and write the manifest.

Run: ``python examples/01_plan.py [FOLDER] [SECONDS]``
"""

import sys
from pathlib import Path

import planner
from planner.manifest import write_manifest
from planner.options import SolveOptions


def main(folder: Path, seconds: float) -> Path:
    """Solve within ``seconds`` and return the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    options = SolveOptions(time_limit=seconds, domain_imbalance_cap="1.10")
    manifest = planner.solve("toy-2x2", options=options, base=folder)
    path = folder / "plan.json"
    write_manifest(manifest, path)

    value, holdout = manifest.objective, manifest.holdout
    print(f"{value.name}: {value.value * 1e3:.3f} ms planned ({manifest.status})")
    if holdout is not None:
        for name, baseline in holdout.baselines.items():
            if baseline.objective is not None:
                ratio = holdout.objective.value / baseline.objective.value
                print(f"on unseen sequences: {ratio:.3f} of {name}")
    print(f"written: {path.name}")
    return path


if __name__ == "__main__":
    main(
        Path(sys.argv[1] if len(sys.argv) > 1 else "out"),
        float(sys.argv[2]) if len(sys.argv) > 2 else 10.0,
    )
