"""What a cause of infeasibility sees, finds and offers; the family's registry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from planner.arrays import IntArray
from planner.instance import Lowest
from planner.layout import ParallelLayout
from planner.options import SolveOptions
from planner.registry import Registry
from planner.topology.graph import ClusterTopology
from planner.workload.memory import MemoryBill
from planner.workload.model_spec import MoEModelSpec

OPTION, SERVICE, PRECISION, HARDWARE = range(4)
"""Classes of cost: nothing but an option, less service, less precision, more GPUs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """A problem before anything is placed: all that decides whether a plan exists.

    Attributes
    ----------
    slots_given
        Whether a plan at hand says how many slots there are.
    loads
        Returns (token, expert) pairs [L, E] of the planning part of every workload.
    reached
        Returns the imbalance per GPU and per domain (worst layer) of plans that are
        quickly made, each in the unit of its cap: a max/mean, or a multiple of the
        lowest baseline's; whatever one of them reaches is a cap that can be kept.
    lowest
        Returns the lowest max/mean of a baseline by workload and layer, for the name
        of a cap.
    """

    options: SolveOptions
    topology: ClusterTopology
    model: MoEModelSpec
    layout: ParallelLayout
    slots_per_gpu: int
    slots_given: bool
    bill: MemoryBill
    loads: Callable[[], tuple[IntArray, ...]]
    reached: Callable[[], Sequence[tuple[float, float]]]
    lowest: Callable[[str], Lowest]

    @property
    def slot_count(self) -> int:
        """P."""
        if self.single:
            return self.model.experts
        return self.layout.ep * self.slots_per_gpu

    @property
    def single(self) -> bool:
        """Whether a GPU holds one expert of all layers together."""
        return self.options.policy == "one_expert_per_gpu_total"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A candidate of a repair.

    Attributes
    ----------
    cost
        Class of cost, and the size of the change relative to what it was.
    options
        Options to replace.
    domains
        Copies of the last scale-up domain to add to the cluster.
    memory_bytes
        Bytes to add to every GPU.
    """

    what: str
    cost: tuple[int, float]
    options: Mapping[str, object] = field(default_factory=dict)
    domains: int = 0
    memory_bytes: int = 0

    def beside(self, other: "Change") -> "Change":
        """Return both changes as one."""
        return Change(
            what=f"{self.what} and {other.what}",
            cost=(
                max(self.cost[0], other.cost[0]),
                self.cost[1] + other.cost[1],
            ),
            options={**self.options, **other.options},
            domains=self.domains + other.domains,
            memory_bytes=self.memory_bytes + other.memory_bytes,
        )


Ladder = tuple[Change, ...]
"""Changes of one kind, the smallest first: the first that helps is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cause that holds: its words, its numbers, and candidates of repairs."""

    says: str
    numbers: Mapping[str, object]
    ladders: tuple[Ladder, ...] = ()


CAUSES: Registry[Callable[[Setup], Finding | None]] = Registry("cause")
"""Each returns what it finds, None where it is no reason against a plan."""


def more_domains(setup: Setup, first: int, tries: int) -> Ladder:
    """Return the ladder of ``first`` and more copies of the last domain.

    Degrees that a larger cluster changes are left to it again.
    """
    members = setup.topology.domains[-1]
    hosts = {setup.topology.gpus[gpu].host for gpu in members}
    word = "host" if len(hosts) == 1 else "scale-up domain"
    freed: dict[str, object] = {}
    if setup.options.layout != "auto":
        freed["layout"] = f"tp={setup.layout.tp}"
    return tuple(
        Change(
            what=f"{count} more {word}{'s' if count > 1 else ''} of {len(members)} GPU"
            f"{'s' if len(members) > 1 else ''}",
            cost=(HARDWARE, count * len(members) / setup.topology.gpu_count),
            options=freed,
            domains=count,
        )
        for count in range(max(1, first), max(1, first) + tries)
    )
