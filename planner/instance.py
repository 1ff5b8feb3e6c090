"""The placement problem, validated and frozen: what every strategy receives."""

from dataclasses import dataclass

from planner.arrays import IntArray
from planner.layout import ParallelLayout
from planner.topology.graph import ClusterTopology
from planner.topology.paths import Routes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import Part

TRAFFIC_MODES = ("copies", "dedup_gpu", "dedup_domain")
SELECTIONS = ("nearest", "even", "weighted")
ENDPOINTS = ("local_nic", "dest_forward")
OBJECTIVES = ("link_time", "link_tokens", "gpu_tokens")
LAYER_MODES = ("sequential", "pipelined", "worst_layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimized (rule 23).

    ``link_classes`` is the scope of ``link_tokens`` as given; None means the
    default scope. ``link_time`` always looks at every link.
    """

    name: str = "link_time"
    layers: str = "sequential"
    link_classes: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Imbalance caps on the planning part (rule 26); None means no cap."""

    gpu: float | None = None
    domain: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacementInstance:
    """One placement problem.

    Attributes
    ----------
    slots_per_gpu
        Slots of every GPU in every layer (policy ``uniform``): P = ep · this.
    message_bytes
        Bytes of one dispatch and one combine transfer (rule 22).
    memory_bytes_G, memory_limit_G
        Bytes each GPU needs under this plan, and what it has.
    """

    topology: ClusterTopology
    routes: Routes
    model: MoEModelSpec
    layout: ParallelLayout
    traffic: str
    selection: str
    endpoint: str
    objective: Objective
    caps: Caps
    slots_per_gpu: int
    message_bytes: tuple[int, int]
    planning: Part
    holdout: Part | None
    memory_bytes_G: IntArray
    memory_limit_G: IntArray

    @property
    def layer_count(self) -> int:
        """L."""
        return len(self.model.moe_layers)

    @property
    def slot_count(self) -> int:
        """P, slots of one EP set in one layer."""
        return self.layout.ep * self.slots_per_gpu
