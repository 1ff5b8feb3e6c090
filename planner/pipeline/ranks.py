"""Replay between processes: one rank per GPU of the plan.

Ranks that torchrun, mpirun or srun started find each other by its variables; where
there are none, this machine's own processes are started.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from planner.errors import UsageError
from planner.executor.host import ProcessHost
from planner.executor.timeline.chrome import chrome_trace
from planner.executor.timeline.picture import busiest, svg
from planner.executor.timeline.record import Interval
from planner.executor.world import environment
from planner.executor.world.join import join
from planner.executor.world.launch import launch
from planner.executor.world.watch import watched
from planner.manifest import read_manifest
from planner.pipeline.replaying import ReplayOptions, ReplayReport, replay_here

MOST_HERE = 64
"""Most ranks that are started on this machine unasked."""
DRAWN_S = 0.25
"""Seconds of a timeline that its picture shows at most."""


def replay_between(
    plan: Path, options: ReplayOptions, timeline: str | Path | None
) -> ReplayReport:
    """Be a rank of a launcher's, or start all ranks here and return rank 0's report."""
    folder = None if timeline is None else Path(timeline).resolve()
    arguments = (plan.resolve(), options, folder)
    if environment.find() is not None:
        return replay_as_rank(*arguments)
    gpus = len(read_manifest(plan).gpus)
    if gpus > MOST_HERE:
        raise UsageError(
            f"--executor distributed starts one process per GPU, and the plan has "
            f"{gpus}: use --executor local, or start the ranks with torchrun, mpirun "
            "or srun"
        )
    report: ReplayReport = launch(replay_as_rank, arguments, size=gpus)
    return report


def replay_as_rank(
    plan: Path, options: ReplayOptions, timeline: Path | None
) -> ReplayReport:
    """Join the other ranks and replay this one's share."""
    found = environment.find()
    if found is None:
        raise UsageError("no launcher's variables name this rank")
    said = json.dumps([asdict(options), timeline is not None]).encode()
    claim = hashlib.sha256(plan.read_bytes() + said).hexdigest()
    gpus = len(read_manifest(plan).gpus)
    world = join(found, claim=claim, gpus=gpus, device=options.device)
    with watched(world):
        host = ProcessHost(world.group, world.device)
        if timeline is not None:
            host.watched()
        report = replay_here(plan, options, host=host)
        if timeline is not None:
            intervals = [each for own in host.everyone(host.noted) for each in own]
            if world.rank == 0:
                _write(intervals, timeline, plan.name)
    return report


def _write(intervals: list[Interval], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trace = json.dumps(chrome_trace(intervals))
    (folder / "timeline.json").write_text(trace, encoding="utf-8")
    picture = svg(
        intervals,
        title=f"{name}: ranks computing while rows travel",
        window=busiest(intervals, DRAWN_S),
    )
    (folder / "timeline.svg").write_text(picture, encoding="utf-8")
