"""What tests send to ranks."""

from typing import Any

from planner.executor.host import ProcessHost
from planner.executor.replay import replay
from planner.executor.result import ReplayResult


def replayed(world: Any, options: dict[str, Any]) -> ReplayResult:
    """Replay on one rank of a world."""
    host = ProcessHost(world.group, world.device)
    return replay("distributed", "forced", **options, host=host)
