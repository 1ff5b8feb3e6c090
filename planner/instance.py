"""The placement problem, validated and frozen: what every strategy receives."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from planner.arrays import BoolArray, IntArray
from planner.constraints import PlacementConstraints
from planner.errors import UsageError
from planner.layout import ParallelLayout
from planner.topology.graph import (
    HOST_KINDS,
    SCALE_UP_KINDS,
    ClusterTopology,
    Link,
    Weights,
)
from planner.topology.paths import Routes
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import Part

TRAFFIC_MODES = ("copies", "dedup_gpu", "dedup_domain", "direct")
SELECTIONS = ("nearest", "even", "weighted")
ENDPOINTS = ("local_nic", "pxn", "dest_forward")
OBJECTIVES = ("link_time", "link_tokens", "gpu_tokens")
LAYER_MODES = ("sequential", "pipelined", "worst_layer")
COMBINATIONS = ("mean", "worst")
PLAN_FOR = ("seen", "unseen")


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is minimized (rule 23).

    ``link_classes`` is the scope of ``link_tokens`` as given; None means the
    default scope. ``link_time`` always looks at every link. ``combine`` says how
    several workloads make one value (rule 25).
    """

    name: str = "link_time"
    layers: str = "sequential"
    link_classes: tuple[str, ...] | None = None
    combine: str = "mean"


Lowest = tuple[tuple[Fraction, ...], ...]
"""By workload and layer, the least max/mean of any baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """Imbalance caps on the planning part (rule 26); None means no cap.

    A cap is the most max/mean in a layer; where ``gpu_lowest`` or ``domain_lowest``
    is given it multiplies the lowest baseline's in that layer.
    """

    gpu: float | None = None
    domain: float | None = None
    gpu_lowest: Lowest | None = None
    domain_lowest: Lowest | None = None

    def gpu_at(self, layer: int) -> Fraction | None:
        """Return the cap of every GPU in a layer, of the first workload."""
        return _cap_at(self.gpu, self.gpu_lowest, layer)

    def domain_at(self, layer: int) -> Fraction | None:
        """Return the cap of every domain in a layer, of the first workload."""
        return _cap_at(self.domain, self.domain_lowest, layer)

    def of_workload(self, number: int) -> "Caps":
        """Return the caps of one workload alone."""
        gpu, domain = self.gpu_lowest, self.domain_lowest
        return replace(
            self,
            gpu_lowest=(gpu[number],) if gpu else None,
            domain_lowest=(domain[number],) if domain else None,
        )


def _cap_at(cap: float | None, lowest: Lowest | None, layer: int) -> Fraction | None:
    if cap is None:
        return None
    return Fraction(str(cap)) * (lowest[0][layer] if lowest else 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """One use of the plan: a part of a trace and how its tokens travel (rule 25).

    Attributes
    ----------
    message_bytes
        Bytes of one dispatch and one combine transfer (rule 22).
    weight
        Its share of a mean over several workloads.
    """

    name: str = "workload"
    traffic: str
    endpoint: str
    message_bytes: tuple[int, int]
    planning: Part
    holdout: Part | None
    weight: Fraction = Fraction(1)


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacementInstance:
    """One placement problem.

    An instance of several workloads is judged workload by workload, each through
    its view; ``traffic``, ``endpoint``, ``message_bytes``, ``planning`` and
    ``holdout`` are those of a view's only workload, or of the first of several.

    Attributes
    ----------
    workloads
        At least one.
    slots_per_gpu
        Slots of every GPU in every layer (policy ``uniform``): P = ep · this.
    single
        Whether a GPU holds one expert of all layers together (policy
        ``one_expert_per_gpu_total``): ``slots_per_gpu`` is 1 and P = E.
    memory_bytes_G, memory_limit_G
        Bytes each GPU needs under this plan, and what it has.
    unseen
        Whether the plan is for tokens that are not seen yet: those of the planning
        part are then a sample of them.
    nested_groups
        Routing groups, runs of consecutive experts, each of which must have all its
        copies in one domain; 0 if experts may be anywhere.
    constraints
        Pins, forbidden GPUs, copies apart, moves from a previous plan; None: none.
    """

    topology: ClusterTopology
    routes: Routes
    model: MoEModelSpec
    layout: ParallelLayout
    selection: str
    objective: Objective
    caps: Caps
    slots_per_gpu: int
    workloads: tuple[Workload, ...]
    memory_bytes_G: IntArray
    memory_limit_G: IntArray
    single: bool = False
    unseen: bool = False
    nested_groups: int = 0
    constraints: PlacementConstraints | None = None

    @cached_property
    def views(self) -> tuple["PlacementInstance", ...]:
        """One instance per workload; an instance of one workload is its own view."""
        if len(self.workloads) == 1:
            return (self,)
        return tuple(
            replace(self, workloads=(each,), caps=self.caps.of_workload(number))
            for number, each in enumerate(self.workloads)
        )

    @cached_property
    def in_scope(self) -> Weights:
        """1 for the links that count for ``link_tokens``, 0 for the others."""
        scope_A = scope_of(self.topology.links, self.objective.link_classes)
        return Weights(
            exact=[Fraction(int(inside)) for inside in scope_A],
            near_A=scope_A.astype(np.float64),
        )

    @property
    def traffic(self) -> str:
        """Traffic mode of the first workload."""
        return self.workloads[0].traffic

    @property
    def endpoint(self) -> str:
        """Endpoint mode of the first workload."""
        return self.workloads[0].endpoint

    @property
    def message_bytes(self) -> tuple[int, int]:
        """Bytes of a dispatch and a combine transfer of the first workload."""
        return self.workloads[0].message_bytes

    @property
    def planning(self) -> Part:
        """Planning part of the first workload."""
        return self.workloads[0].planning

    @property
    def holdout(self) -> Part | None:
        """Held-out part of the first workload."""
        return self.workloads[0].holdout

    @property
    def layer_count(self) -> int:
        """L."""
        return len(self.model.moe_layers)

    @property
    def slot_count(self) -> int:
        """P, slots of one EP set in one layer."""
        if self.single:
            return self.model.experts
        return self.layout.ep * self.slots_per_gpu


def scope_of(links: Sequence[Link], classes: Sequence[str] | None) -> BoolArray:
    """Return which links count for ``link_tokens`` [A] (rules 10 and 23).

    Raises
    ------
    UsageError
        If a class names no link of the topology.
    """
    inner = SCALE_UP_KINDS | HOST_KINDS
    known = sorted({link.link_class for link in links if not link.members})
    unknown = [name for name in classes or () if name not in known]
    if unknown:
        rule = f"no link has class {unknown[0]!r}; choose from {', '.join(known)}"
        raise UsageError(rule)
    edges = np.asarray(
        [
            not link.members
            and (link.link_class in classes if classes else link.kind not in inner)
            for link in links
        ],
        dtype=np.bool_,
    )
    if not edges.any():
        edges = np.asarray([not link.members for link in links], dtype=np.bool_)
    for link in links:
        if link.members:
            edges[link.index] = edges[list(link.members)].any()
    return edges
