"""Small replays for the executor's tests, and what ranks of a world do of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.evaluator.evaluation import evaluate
from planner.executor.replay import replay
from planner.executor.result import ReplayResult
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.workload.parts import TokenPart

PROGRAMS = (
    "planner.executor.forced",
    "planner.executor.text.run",
    "tests.unit.executor.replays",
)
"""What ranks of these tests need: imported once, before they are forked."""


@dataclass(frozen=True)
class Job:
    """One plan, one part and the rules of one workload."""

    instance: PlacementInstance
    plan: PlacementPlan

    @property
    def part(self) -> TokenPart:
        part = self.instance.planning
        assert isinstance(part, TokenPart)
        return part

    @property
    def options(self) -> dict[str, Any]:
        """What a replay needs."""
        instance = self.instance
        return {
            "plan": self.plan,
            "part": self.part,
            "layout": instance.layout,
            "model_spec": instance.model,
            "traffic": instance.traffic,
            "selection": instance.selection,
            "endpoint": instance.endpoint,
            "message_bytes": instance.message_bytes,
            "routes": instance.routes,
        }


@dataclass(frozen=True)
class Seen:
    """What one replay counted."""

    dispatch: Any
    combine: Any
    pairs: Any
    numerators: Any
    error: float | None

    @classmethod
    def of(cls, result: ReplayResult) -> "Seen":
        moved = result.moved
        return cls(
            moved.dispatch_LGG,
            moved.combine_LGG,
            moved.gpu_pairs_LG,
            result.numerators_L2A,
            result.max_relative_error,
        )

    def differs(self, other: "Seen") -> list[str]:
        """Names of the counts that are not the same."""
        names = ("dispatch", "combine", "pairs", "numerators")
        return [
            name
            for name in names
            if not np.array_equal(getattr(self, name), getattr(other, name))
        ]


def predicted(job: Job) -> Seen:
    """What the evaluator says."""
    layers = evaluate(job.instance, job.plan, job.part).layers
    return Seen(
        np.stack([loads.transfers.matrix() for loads in layers]),
        np.stack([loads.combine.matrix() for loads in layers]),
        np.stack([loads.pairs_G for loads in layers]),
        np.stack([loads.loads_2A for loads in layers]),
        None,
    )


def counted(job: Job) -> Seen:
    """Replay by counting alone."""
    return Seen.of(replay("counter", "forced", **job.options))


def moved_here(job: Job) -> Seen:
    """Replay between virtual ranks."""
    return Seen.of(replay("local", "forced", **job.options))


def moved_between(world: Any, job: Job) -> Seen:
    """Replay on one rank of a world."""
    from planner.executor.host import ProcessHost

    host = ProcessHost(world.group, world.device)
    return Seen.of(replay("distributed", "forced", **job.options, host=host))
