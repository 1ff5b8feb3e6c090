"""Whether a plan can exist at all, why not, and what would repair it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from math import inf
from operator import truediv

import numpy as np

from planner.arrays import IntArray
from planner.errors import Cause, InfeasibleError, PlannerError, Repair, UsageError
from planner.evaluator import Evaluation, evaluate_planning
from planner.explain.causes import CAUSES, Change, Finding, Setup
from planner.explain.causes.caps import FLAGS, cap_ladders
from planner.explain.causes.memory import less_service
from planner.instance import Caps, Lowest, Objective, PlacementInstance, Workload
from planner.layout import ParallelLayout
from planner.options import SolveOptions, cap_number, is_relative
from planner.pipeline.attention import Mode, attention_layout, dearest_bill
from planner.pipeline.groups import slots_per_gpu
from planner.pipeline.resolve import SINGLE
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    part_loads,
    published_plan,
    repaired,
)
from planner.topology.graph import ClusterTopology
from planner.topology.paths import build_routes
from planner.workload.memory import MemoryBill
from planner.workload.model_spec import MoEModelSpec
from planner.workload.parts import CountsPart

Helping = tuple[Change, tuple[str, ...]]
"""A change that removes a cause, and the causes it leaves."""

NOTHING = Change(what="nothing", cost=(0, 0.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Feasibility:
    """What a problem is made of, so that it can be checked and checked again.

    Attributes
    ----------
    layout
        Groups in force; what a change makes of them is decided anew.
    slots
        Slots per GPU of a plan at hand; None where the options decide.
    """

    topology: ClusterTopology
    model: MoEModelSpec
    options: SolveOptions
    workloads: tuple[Workload, ...]
    layout: ParallelLayout
    slots: int | None

    def setup(self, change: Change = NOTHING) -> Setup:
        """Return what decides feasibility after a change.

        Raises
        ------
        UsageError
            If the changed options do not go together.
        InfeasibleError
            If a term of the memory is beyond counting.
        """
        options = replace(self.options, **dict(change.options))  # type: ignore[arg-type]
        model = self.model
        if options.precision is not None:
            model = replace(model, precision=options.precision)  # type: ignore[arg-type]
        topology = _enlarged(self.topology, change)
        modes = [mode_of(each) for each in self.workloads]
        layout = self.layout
        if change is not NOTHING:
            layout = attention_layout(topology, model, options, modes, self.slots)
        per_gpu = self.slots or slots_per_gpu(model.experts, layout.ep, options)
        bill = dearest_bill(model, topology, layout, per_gpu, options, modes)
        same_homes = layout.attention_groups == self.layout.attention_groups
        made = _Made(self, options, topology, layout, per_gpu, bill)
        return Setup(
            options=options,
            topology=topology,
            model=model,
            layout=layout,
            slots_per_gpu=per_gpu,
            slots_given=self.slots is not None,
            bill=bill,
            loads=lambda: self._loads,
            reached=cache(made.reached) if same_homes else tuple,
            lowest=cache(made.lowest),
        )

    @cached_property
    def own(self) -> Setup:
        """The setup as it is."""
        return self.setup()

    @cached_property
    def _loads(self) -> tuple[IntArray, ...]:
        experts = self.model.experts
        return tuple(part_loads(each.planning, experts) for each in self.workloads)

    def check(self) -> Setup:
        """Return the setup of a problem that nothing speaks against.

        Raises
        ------
        InfeasibleError
            With every cause, its numbers, and repairs that were checked again.
        """
        found = findings(self.own)
        if found:
            raise self.error(found)
        return self.own

    def proven(self, error: InfeasibleError) -> InfeasibleError:
        """Return what a solver proved as causes: only caps are left to blame."""
        options = self.options
        in_force = [name for name in FLAGS if getattr(options, name) is not None]
        if error.causes or not in_force:
            return error
        return self.error(
            {
                name: Finding(
                    says=str(error),
                    numbers={"cap": float(cap_number(getattr(options, name)))},
                    ladders=cap_ladders(self.own, name),
                )
                for name in in_force
            }
        )

    def error(self, found: Mapping[str, Finding]) -> InfeasibleError:
        """Return all causes with their repairs as one error."""
        causes = tuple(
            Cause(
                name=name,
                says=finding.says,
                numbers=finding.numbers,
                repairs=self._repairs(name, finding),
            )
            for name, finding in found.items()
        )
        return InfeasibleError(_message(causes), causes)

    def _repairs(self, name: str, finding: Finding) -> tuple[Repair, ...]:
        """Try every ladder up to its first change that helps, the cheapest first."""
        tried = [self._first_help(name, ladder) for ladder in finding.ladders]
        helping = [each for each in tried if each is not None]
        if name == "memory" and not any(_is_enough(each) for each in helping):
            helping += self._together()
        ranked = sorted(helping, key=lambda each: (bool(each[1]), each[0].cost))
        return tuple(
            Repair(what=change.what, options=dict(change.options), leaves=leaves)
            for change, leaves in ranked
        )

    def _together(self) -> list[Helping]:
        """Where no one change is enough: less service, and what is missing then.

        Of changes that need as many more domains only the first is kept.
        """
        found: dict[int, Helping] = {}
        for less in less_service(self.own):
            ladders: list[Sequence[Change]] = [(less,)]
            left = findings(self.setup(less)).get("memory")
            if left is not None:
                ladders = [
                    tuple(less.beside(change) for change in ladder)
                    for ladder in left.ladders
                    if not any(change.memory_bytes for change in ladder)
                ]
            for ladder in ladders:
                each = self._first_help("memory", ladder)
                if each is not None and _is_enough(each):
                    found.setdefault(each[0].domains, each)
        return list(found.values())

    def _first_help(self, name: str, ladder: Sequence[Change]) -> Helping | None:
        for change in ladder:
            try:
                setup = self.setup(change)
            except PlannerError:
                continue
            left = tuple(findings(setup))
            if name in left or (name in FLAGS and not _kept(setup)):
                continue
            return change, left
        return None


def _is_enough(helping: Helping) -> bool:
    """Whether a change leaves no cause, and asks for no GPU that is not sold."""
    change, left = helping
    return not left and not change.memory_bytes


def findings(setup: Setup) -> dict[str, Finding]:
    """Return what every cause finds, by name."""
    found = {name: CAUSES.get(name)(setup) for name in CAUSES.names()}
    return {name: finding for name, finding in found.items() if finding is not None}


def mode_of(workload: Workload) -> Mode:
    """Return how the tokens of a workload travel."""
    return Mode(
        traffic=workload.traffic,
        message_bytes=workload.message_bytes,
        counts=isinstance(workload.planning, CountsPart),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """Plans that are made at once, to see which imbalance can be reached."""

    feasibility: Feasibility
    options: SolveOptions
    topology: ClusterTopology
    layout: ParallelLayout
    per_gpu: int
    bill: MemoryBill

    def reached(self) -> Sequence[tuple[float, float]]:
        """Return what every plan reaches per GPU and per domain, worst layer."""
        instance = self._instance()
        units = [self._unit(name, instance) for name in FLAGS]
        found = []
        for plan in _quick_plans(instance):
            most = [Fraction(0), Fraction(0)]
            for number, one in enumerate(evaluate_planning(instance, plan).each):
                figures = (one.gpu_imbalance_L, one.domain_imbalance_L)
                for column, figure_L in enumerate(figures):
                    unit_L = units[column][number]
                    shares = map(truediv, figure_L, unit_L)
                    most[column] = max(most[column], *shares)
            found.append((float(most[0]), float(most[1])))
        return found

    def lowest(self, name: str) -> Lowest:
        """Return the lowest max/mean of a baseline as published, by workload, layer."""
        instance = self._instance()
        judged = [
            evaluate_planning(instance, plan).each for plan in _published(instance)
        ]
        return tuple(
            tuple(map(min, *(_figure(each[number], name) for each in judged)))
            for number in range(len(instance.workloads))
        )

    def _unit(self, name: str, instance: PlacementInstance) -> Lowest:
        text = getattr(self.options, name)
        if text is not None and is_relative(text):
            return self.lowest(name)
        ones = (Fraction(1),) * instance.layer_count
        return (ones,) * len(instance.workloads)

    def _instance(self) -> PlacementInstance:
        given, options = self.feasibility, self.options
        return PlacementInstance(
            topology=self.topology,
            routes=build_routes(self.topology),
            model=given.model,
            layout=self.layout,
            selection=options.selection,
            objective=Objective(name="gpu_tokens"),
            caps=Caps(),
            slots_per_gpu=self.per_gpu,
            workloads=given.workloads,
            memory_bytes_G=self.bill.total_G,
            memory_limit_G=self.bill.limit_G,
            single=options.policy == SINGLE,
        )


def _figure(evaluation: Evaluation, name: str) -> tuple[Fraction, ...]:
    """Return the max/mean of every layer that a cap is about."""
    if name == "imbalance_cap":
        return evaluation.gpu_imbalance_L
    return evaluation.domain_imbalance_L


def _published(instance: PlacementInstance) -> list[PlacementPlan]:
    """Return every baseline that exists; two always do."""
    plans = []
    for name in BASELINES.names():
        with suppress(AbsentBaselineError):
            plans.append(published_plan(instance, name))
    return plans


def _quick_plans(instance: PlacementInstance) -> list[PlacementPlan]:
    """Baselines without their duplicates, and what ``fast`` makes of them."""
    if instance.slot_count < instance.model.experts:
        return []
    needed = instance.layer_count * instance.model.experts
    if instance.single and needed > instance.layout.ep:
        return []
    plans = [repaired(instance, plan) for plan in _published(instance)]
    if instance.single:
        return plans
    # It does not plan every kind of instance.
    with suppress(UsageError, InfeasibleError):
        plans.append(STRATEGIES.get("fast")(instance, Limits(seconds=1), plans).plan)
    return plans


def _kept(setup: Setup) -> bool:
    """Whether one of the quick plans keeps the caps of the setup."""
    options = setup.options
    caps = [
        inf if text is None else float(cap_number(text))
        for text in (options.imbalance_cap, options.domain_imbalance_cap)
    ]
    return any(gpu <= caps[0] and domain <= caps[1] for gpu, domain in setup.reached())


def _enlarged(topology: ClusterTopology, change: Change) -> ClusterTopology:
    """Return the GPUs of a larger cluster; its links stay those of the smaller.

    Feasibility does not look at links.
    """
    gpus = list(topology.gpus)
    domain_G: IntArray = topology.domain_G
    if change.domains:
        members = list(topology.domains[-1])
        first, count = int(domain_G.max()) + 1, change.domains
        gpus += [
            replace(gpus[gpu], id=f"{gpus[gpu].id}+{number}")
            for number in range(1, count + 1)
            for gpu in members
        ]
        added = np.repeat(np.arange(first, first + count), len(members))
        domain_G = np.concatenate([domain_G, added])
    if change.memory_bytes:
        gpus = [
            replace(gpu, memory_bytes=gpu.memory_bytes + change.memory_bytes)
            for gpu in gpus
        ]
    if not change.domains and not change.memory_bytes:
        return topology
    return replace(topology, gpus=tuple(gpus), domain_G=domain_G)


def _message(causes: Sequence[Cause]) -> str:
    """Return the words of all causes and the cheapest repair that is enough."""
    says = "; ".join(dict.fromkeys(cause.says for cause in causes))
    enough = [
        repair for cause in causes for repair in cause.repairs if not repair.leaves
    ]
    if enough:
        others = f", or {enough[1].what}" if len(enough) > 1 else ""
        return f"{says}; cheapest repair: {enough[0].what}{others}"
    partial = [
        f"for {cause.name}: {cause.repairs[0].what}"
        for cause in causes
        if cause.repairs
    ]
    if partial:
        return f"{says}; no single change is enough ({'; '.join(partial)})"
    return f"{says}; no repair was found"
