"""Homes by tag: DP ranks where their number puts them, and placed with the experts.

    python -m benchmarks.placed_groups [--time-limit 120] [--topology h100-4x8-rail]

DeepSeek-V2-Lite's recorded routing once with its tags, whose blocks of ranks nearly
are domains, and once with every tag in two halves whose names are far apart, so that
ranks which use the same experts stand in different domains. Prints, for both, groups
by number and placed: link time on the planning and the held-out part, and over that of
the best EPLB. Needs the shared data (``PLANNER_SHARED_DATA``).
"""

import argparse
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import planner
from planner.manifest import Manifest
from planner.options import SolveOptions

SHARED = Path(os.environ.get("PLANNER_SHARED_DATA", "../shared/data"))


def halved(source: Path, folder: Path) -> Path:
    """Write the trace with tags ``a-…`` and ``b-…``: sequences in turn."""
    table = pq.read_table(source)
    column = "tag" if "tag" in table.column_names else "domain"
    ids = sorted(set(table["seq_id"].to_pylist()))
    half = {name: "ab"[at % 2] for at, name in enumerate(ids)}
    first = pa.array([half[name] for name in table["seq_id"].to_pylist()])
    named = pc.binary_join_element_wise(first, table[column].cast(pa.string()), "-")
    place = table.column_names.index(column)
    path = folder / "halved.parquet"
    pq.write_table(table.set_column(place, column, named), path)
    return path


def line(manifest: Manifest) -> str:
    """Return the figures of a plan."""
    held = manifest.holdout
    assert held is not None
    best = min(
        each.objective.value
        for name, each in held.baselines.items()
        if name.startswith("eplb") and each.objective is not None
    )
    placed = [note for note in manifest.provenance.notes if "DP ranks" in note]
    seen, unseen = manifest.objective.value, held.objective.value
    words = f"; {placed[0]}" if placed else ""
    return (
        f"planning {1000 * seen:.3f} ms, held-out {1000 * unseen:.3f} ms, "
        f"{unseen / best:.4f} of the best EPLB{words}"
    )


def main() -> None:
    """Print four lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", default="h100-4x8-rail")
    parser.add_argument("--time-limit", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    source = SHARED / "traces/deepseek-v2-lite.parquet"
    with tempfile.TemporaryDirectory() as folder:
        traces = {"its tags": source, "halved tags": halved(source, Path(folder))}
        for name, trace in traces.items():
            for groups in ("auto", "placed"):
                options = SolveOptions(
                    homes="by_tag",
                    groups=groups,
                    redundant="0",
                    domain_imbalance_cap="1.10",
                    plan_for="unseen",
                    time_limit=given.time_limit,
                    threads=given.threads,
                )
                plan = planner.solve(given.topology, trace=trace, options=options)
                print(f"{name}, groups {groups}: {line(plan)}", flush=True)


if __name__ == "__main__":
    main()
