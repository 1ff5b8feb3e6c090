"""One layer with routing groups that stay in one domain each.

Domains are alike, so a layer is a partition of the groups into as many parts as there
are domains, and each part a layer of its own: its experts on the GPUs of one domain.
A partition's value is that of its worst part. Parts are solved as they are needed: in
the partition of least optimistic value, the part that decides it; what is solved
thoroughly counts with its value, everything else with its bound.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import combinations

import numpy as np

from planner import clock
from planner.arrays import IdArray, IntArray
from planner.errors import InfeasibleError
from planner.evaluator.nesting import domain_members, group_members
from planner.instance import PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.plan import SplitWeights
from planner.strategies.balance.bound import LayerBound
from planner.strategies.balance.layer import Effort
from planner.strategies.balance.placed import PlacedLayer, shared_value
from planner.strategies.baselines.base import expert_loads
from planner.workload.parts import CountsPart, Part

MOST_GROUPS = 8
"""More groups than domains, beyond these, make too many partitions."""
EXACT = Fraction(1, 10**9)

PartPlacer = Callable[[PlacementInstance, int, Effort, float], PlacedLayer]
Groups = tuple[int, ...]


def why_not_nested(instance: PlacementInstance) -> str | None:
    """Say why groups cannot be nested here, or None if they can."""
    groups, domains = instance.nested_groups, domain_members(instance)
    if not groups:
        return None
    if len({ranks.size for ranks in domains}) > 1 or instance.layout.sets > 1:
        return "--routing-groups nest needs one EP set of domains of equal size"
    if instance.model.experts % groups or groups < len(domains):
        return (
            f"--routing-groups nest: {instance.model.experts} experts in {groups} "
            f"groups cannot be spread over {len(domains)} domains"
        )
    if groups > MOST_GROUPS and groups != len(domains):
        return (
            f"--routing-groups nest takes up to {MOST_GROUPS} groups, or as many as "
            f"there are domains; there are {groups} groups and {len(domains)} domains"
        )
    if len(instance.workloads) > 1:
        return "--routing-groups nest takes one workload"
    return None


def place_nested(
    place: PartPlacer,
    instance: PlacementInstance,
    index: int,
    effort: Effort,
    seconds: float,
) -> PlacedLayer:
    """Place one layer by parts, ``place`` being how a part's layer is placed.

    Raises
    ------
    InfeasibleError
        If no partition of the groups fits the slots of the domains.
    """
    return _placed(_Nesting(place, instance, index, effort), instance, seconds)


def _placed(
    search: "_Nesting",
    instance: PlacementInstance,
    seconds: float,
    *,
    thorough: bool = False,
) -> PlacedLayer:
    found = search.work(instance, clock.now() + seconds, thorough=thorough)
    more = None if search.closed else partial(_placed, search, thorough=True)
    return replace(found, more=more)


@dataclass(kw_only=True, eq=False)
class _Part:
    """Some groups on the GPUs of one domain."""

    experts: IntArray
    load_E: IntArray
    mean: Fraction
    placed: PlacedLayer | None = None
    value: Fraction | None = field(default=None)
    thorough: bool = False

    @property
    def bound(self) -> Fraction:
        """What no placement of the part is below."""
        return self.mean if self.placed is None else self.placed.bound.value

    @property
    def optimistic(self) -> Fraction:
        """Its value, if no more is tried; else its bound."""
        return self.value if self.thorough and self.value is not None else self.bound

    def take(self, placed: PlacedLayer) -> None:
        """Keep the better placement, and the bound."""
        value = shared_value(self.load_E, placed.slots_GJ, placed.split)
        if self.placed is None or self.value is None or value < self.value:
            self.value, self.placed = value, placed
        else:
            self.placed = replace(self.placed, bound=placed.bound, more=placed.more)
        done = self.value <= self.bound * (1 + EXACT)
        self.thorough = self.thorough or done or placed.more is None


class _Nesting:
    """The parts of one layer, solved as far as they matter."""

    def __init__(
        self,
        place: PartPlacer,
        instance: PlacementInstance,
        index: int,
        effort: Effort,
    ) -> None:
        self._place, self._index, self._effort = place, index, effort
        self._groups, self._domains = instance.nested_groups, domain_members(instance)
        self._parts = _parts(instance, index, self._domains[0].size)
        self.closed = False
        """Whether nothing is left to try."""
        if self._partition(lambda part: part.mean) is None:
            raise InfeasibleError(
                f"--routing-groups nest: {instance.nested_groups} groups of experts "
                f"do not fit {len(self._domains)} domains of "
                f"{self._domains[0].size * instance.slots_per_gpu} slots; add slots "
                "with --redundant"
            )

    def work(
        self, instance: PlacementInstance, deadline: float, *, thorough: bool
    ) -> PlacedLayer:
        """Solve the parts that decide the best partition; return it."""
        finished = True
        while True:
            chosen = self._chosen(lambda part: part.optimistic)
            open_parts = [
                self._parts[groups]
                for groups in chosen
                if self._parts[groups].placed is None
                or (thorough and not self._parts[groups].thorough)
            ]
            known = all(part.placed is not None for part in self._solved_or(chosen))
            if not open_parts or (known and self._is_best()):
                self.closed = thorough or self._is_best()
                break
            left = deadline - clock.now()
            if left <= 0 and known:
                finished = False
                break
            part = max(open_parts, key=lambda each: each.optimistic)
            self._solve(instance, part, max(0.0, left) / (2 * len(open_parts)))
        return self._layer(instance.slots_per_gpu, finished=finished)

    def _solved_or(self, chosen: list[Groups]) -> list[_Part]:
        """Return the parts of the best partition solved, else of the one chosen."""
        solved = self._partition(lambda part: part.value)
        return [self._parts[groups] for groups in solved or chosen]

    def _is_best(self) -> bool:
        """Whether no partition can be better than the best one solved."""
        solved = self._partition(lambda part: part.value)
        if solved is None:
            return False
        value = max(self._parts[groups].value or Fraction(0) for groups in solved)
        goal = EXACT + Fraction(self._effort.goal)
        return value <= self._least_bound() * (1 + goal)

    def _least_bound(self) -> Fraction:
        chosen = self._chosen(lambda part: part.bound)
        return max(self._parts[groups].bound for groups in chosen)

    def _solve(self, instance: PlacementInstance, part: _Part, seconds: float) -> None:
        alone = _alone(instance, part.experts, self._domains[0].size)
        if part.placed is None:
            part.take(self._place(alone, self._index, self._effort, seconds))
        elif part.placed.more is not None:
            part.take(part.placed.more(alone, seconds))
            part.thorough = True

    def _chosen(self, cost: Callable[[_Part], Fraction | None]) -> list[Groups]:
        chosen = self._partition(cost)
        assert chosen is not None
        return chosen

    def _partition(
        self, cost: Callable[[_Part], Fraction | None]
    ) -> list[Groups] | None:
        known = {groups: cost(part) for groups, part in self._parts.items()}
        costs = {groups: value for groups, value in known.items() if value is not None}
        return least_partition(costs, self._groups, len(self._domains))

    def _layer(self, slots: int, *, finished: bool) -> PlacedLayer:
        """Put the best partition's parts on the domains, one after the other."""
        gpus = sum(ranks.size for ranks in self._domains)
        slots_GJ = np.empty((gpus, slots), dtype=np.int16)
        split: dict[int, SplitWeights] = {}
        solved = self._chosen(lambda part: part.value)
        for ranks, groups in zip(self._domains, solved, strict=True):
            part = self._parts[groups]
            assert part.placed is not None
            slots_GJ[ranks] = part.experts[part.placed.slots_GJ]
            for expert, weights in part.placed.split.items():
                split[int(part.experts[expert])] = weights
            finished = finished and part.placed.finished
        return PlacedLayer(
            slots_GJ=slots_GJ, split=split, bound=self._bound(), finished=finished
        )

    def _bound(self) -> LayerBound:
        known = {
            groups: part.placed.bound
            for groups, part in self._parts.items()
            if part.placed is not None
        }
        parts = [
            {"groups": list(groups), "certificate": dict(bound.certificate)}
            for groups, bound in known.items()
            if bound.certificate is not None
        ]
        return LayerBound(
            value=self._least_bound(),
            method="nest",
            certificate={"kind": "nest", "parts": parts},
            branching=any(bound.branching for bound in known.values()),
        )


def least_partition(
    costs: Mapping[Groups, Fraction], groups: int, parts: int
) -> list[Groups] | None:
    """Return the partition into so many parts whose greatest cost is least.

    None if the parts that have a cost do not make one.
    """
    by_first: dict[int, list[tuple[int, Groups]]] = {}
    for each in costs:
        mask = sum(1 << group for group in each)
        by_first.setdefault(min(each), []).append((mask, each))
    whole = (1 << groups) - 1
    known: dict[tuple[int, int], tuple[Fraction, list[Groups]] | None] = {
        (0, 0): (Fraction(0), [])
    }

    def least(left: int, count: int) -> tuple[Fraction, list[Groups]] | None:
        if (left, count) in known:
            return known[left, count]
        best: tuple[Fraction, list[Groups]] | None = None
        first = (left & -left).bit_length() - 1
        for mask, each in by_first.get(first, ()) if count else ():
            if mask & left != mask or (best and costs[each] >= best[0]):
                continue
            rest = least(left ^ mask, count - 1)
            if rest is not None:
                worst = max(costs[each], rest[0])
                if best is None or worst < best[0]:
                    best = worst, [each, *rest[1]]
        known[left, count] = best
        return best

    found = least(whole, parts)
    return None if found is None else found[1]


def _parts(instance: PlacementInstance, index: int, gpus: int) -> dict[Groups, _Part]:
    """Return every set of groups that fits a domain and leaves each other one some."""
    groups, slots = instance.nested_groups, instance.slots_per_gpu
    members_RE = group_members(instance.model.experts, groups)
    most = groups - len(domain_members(instance)) + 1
    load_E = expert_loads(instance)[index]
    parts = {}
    for size in range(1, most + 1):
        if not slots <= size * members_RE.shape[1] <= gpus * slots:
            continue
        for chosen in combinations(range(groups), size):
            experts = members_RE[list(chosen)].ravel()
            parts[chosen] = _Part(
                experts=experts,
                load_E=load_E[experts],
                mean=Fraction(int(load_E[experts].sum()), gpus),
            )
    return parts


def _alone(
    instance: PlacementInstance, experts: IntArray, gpus: int
) -> PlacementInstance:
    """Return the problem of some experts on the GPUs of one domain."""
    (workload,) = instance.workloads
    planning = _restricted(workload.planning, experts, instance.model.experts)
    only: Workload = replace(workload, planning=planning, holdout=None)
    return replace(
        instance,
        model=replace(instance.model, experts=experts.size, routing_groups=1),
        layout=ParallelLayout(
            domain_G=np.zeros(gpus, dtype=np.int64),
            ep=gpus,
            attention_groups=tuple((gpu,) for gpu in range(gpus)),
        ),
        workloads=(only,),
        nested_groups=0,
    )


def _restricted(part: Part, experts: IntArray, count: int) -> Part:
    """Return the pairs of some experts, which are numbered anew."""
    if isinstance(part, CountsPart):
        return replace(part, tokens_LE=part.tokens_LE[:, experts])
    # The last entry is what "no message" (-1) reads.
    renamed_E: IdArray = np.full(count + 1, -1, dtype=np.int16)
    renamed_E[experts] = np.arange(experts.size)
    return replace(part, experts_LTK=renamed_E[part.experts_LTK])
