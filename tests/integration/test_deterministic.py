"""``--deterministic``: one manifest, byte for byte, whatever should not matter."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.deterministic import CASES, manifest_digest, problem, shuffled
from planner import pipeline
from planner.manifest import Manifest, write_manifest
from planner.options import SolveOptions

SECONDS = 0.5


def planned(strategy: str, threads: int, topology: dict[str, Any]) -> Manifest:
    """Plan the benchmark's case of a strategy with counted work."""
    options = SolveOptions(
        **CASES[strategy],
        strategy=strategy,
        time_limit=SECONDS,
        threads=threads,
        deterministic=True,
    )
    return pipeline.solve(topology, options=options)


@pytest.mark.parametrize("strategy", sorted(CASES))
def test_threads_and_the_order_of_keys_change_no_byte(
    strategy: str, tmp_path: Path
) -> None:
    """The plan, its bound, its history and its seconds depend on the work alone."""
    topology = problem(strategy)
    other = shuffled(topology, random.Random(7))
    assert list(other) != list(topology)
    for name, threads, document in (("one", 1, topology), ("two", 2, other)):
        write_manifest(planned(strategy, threads, document), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_seed_of_hashes_changes_no_byte(tmp_path: Path) -> None:
    """Nothing depends on the order of sets, which differs between processes."""
    one, two = (manifest_digest("search", run, SECONDS, tmp_path) for run in (0, 1))
    assert one == two
    assert not list(tmp_path.iterdir())


def test_the_manifest_says_that_work_was_counted(tmp_path: Path) -> None:
    """The seconds are work, the limit that was hit is work, threads do not count."""
    manifest = planned("search", 2, problem("search"))
    values = manifest.inputs.options.values
    assert values["deterministic"] is True
    assert values["threads"] is None
    assert manifest.provenance.clock == "work"
    assert manifest.termination.limit == "work"
    path = tmp_path / "plan.json"
    write_manifest(manifest, path)
    pipeline.verify(path)


def test_a_usual_plan_counts_seconds() -> None:
    """Without the option nothing changes: threads are recorded, seconds are real."""
    options = SolveOptions(strategy="fast", threads=1)
    manifest = pipeline.solve("toy-2x2", options=options)
    assert manifest.provenance.clock == "wall"
    assert manifest.inputs.options.values["threads"] == 1


def test_a_greater_limit_allows_more_work() -> None:
    """Seconds stand for work: four times as many, more moves."""
    topology = problem("search")
    options = SolveOptions(**CASES["search"], strategy="search", deterministic=True)
    short, long = (
        pipeline.solve(topology, options=replace(options, time_limit=seconds))
        for seconds in (0.5, 2.0)
    )
    assert short.provenance.seconds < long.provenance.seconds
