"""From a problem and its plan to the manifest: evaluate, compare, record."""

import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from math import lcm

import numpy as np

from planner import __version__
from planner.evaluator import (
    Evaluation,
    JointEvaluation,
    evaluate_holdout,
    evaluate_planning,
)
from planner.explain import link_effects, what_binds, why_links_cannot_gain
from planner.instance import Lowest, PlacementInstance, scope_of
from planner.manifest import (
    LayerCounts,
    Manifest,
    digest_of_json,
    exact_text,
    gap_of,
    gpu_predictions,
    layer_prediction,
    objective_report,
)
from planner.manifest.schema import (
    AttentionGroup,
    Baseline,
    BoundReport,
    Caps,
    ContextReport,
    Groups,
    HistoryEntry,
    Holdout,
    ImbalanceReport,
    Inputs,
    Layer,
    LayerBound,
    LayerPrediction,
    MessageBytes,
    ObjectiveReport,
    Options,
    PartPrediction,
    Prediction,
    Provenance,
    Termination,
    Workload,
    WorkloadPart,
)
from planner.pipeline.certifying import certificate_of, certified_bound
from planner.pipeline.problem import Problem
from planner.plan import PlacementPlan
from planner.strategies.base import Bound, SolveResult
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from planner.traffic.base import TRAFFIC
from planner.workload.context import context_cost

OPTIMAL_TOLERANCE = Fraction(1, 10**9)
PACKAGES = ("ortools", "networkx", "numpy", "numba", "pyarrow", "mtkahypar")


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """A plan of a baseline and its evaluations, or the reason for its absence."""

    name: str
    planning: JointEvaluation | None = None
    holdout: JointEvaluation | None = None
    duplicates: bool = False
    reason: str | None = None


def score_baselines(instance: PlacementInstance, limit: float) -> list[Scored]:
    """Evaluate every baseline as published that fits a time limit, on both parts."""
    scored = []
    for name in BASELINES.names():
        try:
            plan = published_plan(instance, name, limit)
        except AbsentBaselineError as absent:
            scored.append(Scored(name=name, reason=str(absent)))
            continue
        scored.append(
            Scored(
                name=name,
                planning=evaluate_planning(instance, plan),
                holdout=evaluate_holdout(instance, plan),
                duplicates=plan.has_duplicates(),
            )
        )
    return scored


def fill_manifest(
    problem: Problem, strategy: str, result: SolveResult, seconds: float
) -> Manifest:
    """Judge the plan and its baselines and record everything."""
    instance, plan = problem.instance, result.plan
    planning = evaluate_planning(instance, plan)
    unseen = evaluate_holdout(instance, plan)
    baselines = score_baselines(instance, problem.options.time_limit)
    bound = _bound(instance, result.bound)
    status, gap = status_of(planning.value, bound)
    return Manifest(
        inputs=Inputs(
            topology=problem.topology_record,
            model=problem.model_record,
            traces=problem.trace_records,
            options=Options(
                values=problem.option_values,
                sha256=digest_of_json(problem.option_values),
            ),
        ),
        gpus=tuple(gpu.id for gpu in instance.topology.gpus),
        layers=tuple(_layers(plan)),
        groups=_groups(instance),
        traffic=instance.traffic,  # type: ignore[arg-type]
        selection=instance.selection,  # type: ignore[arg-type]
        endpoint=instance.endpoint,  # type: ignore[arg-type]
        routing=problem.routing,
        homes=problem.homes[0].policy,
        combine=instance.objective.combine,  # type: ignore[arg-type]
        objective=_objective(planning),
        bound=bound,
        status=status,  # type: ignore[arg-type]
        gap=gap,
        termination=Termination(
            reason=result.reason,  # type: ignore[arg-type]
            limit=result.limit,
        ),
        prediction=_prediction(planning, problem.homes[0].ratio),
        imbalance=_imbalance(planning),
        caps=_caps(instance),
        baselines={base.name: _baseline(base, base.planning) for base in baselines},
        holdout=_holdout(unseen, baselines, problem.homes[0].ratio),
        holdout_reason=holdout_reason(problem, unseen),
        workloads=_workloads(problem, planning, unseen),
        provenance=_provenance(problem, strategy, result, planning, seconds),
    )


def status_of(value: Fraction, bound: BoundReport | None) -> tuple[str, float | None]:
    """Return the status word and the gap (rule 28).

    What no checked certificate closes is the solver's claim.
    """
    if bound is None:
        return "feasible", None
    gap, tolerance = gap_of(value, bound.value), 1 + OPTIMAL_TOLERANCE
    certified = Fraction(bound.certified_exact or 0)
    if value <= certified * tolerance:
        return "proven_optimal", gap
    closed = value <= Fraction(bound.value) * tolerance
    return ("solver_claimed" if closed else "feasible"), gap


def versions() -> dict[str, str]:
    """Return the versions that made a plan."""
    found = {"moe-placement-planner": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["platform"] = sys.platform
    return found


def notes_of(
    problem: Problem, planning: JointEvaluation, result: SolveResult
) -> Sequence[str]:
    """Return what a reader should know: defaults taken, what binds, why no gain."""
    notes = [*problem.notes, *result.notes]
    binds = what_binds(planning.first)
    if binds:
        legs = sum(count for _, count in binds)
        parts = ", ".join(f"{name} in {count}/{legs}" for name, count in binds)
        notes.append(f"what binds (busiest link per layer and leg): {parts}")
    blocked = why_links_cannot_gain(problem.instance)
    if blocked is not None:
        notes.append(blocked)
    else:
        gains = [
            effect.because
            for effect in link_effects(problem.instance)
            if effect.applies
        ]
        notes.append(f"links can gain: {'; '.join(gains)}")
    return notes


def _provenance(
    problem: Problem,
    strategy: str,
    result: SolveResult,
    planning: JointEvaluation,
    seconds: float,
) -> Provenance:
    return Provenance(
        versions=versions(),
        seed=problem.options.seed,
        strategy=strategy,
        layer_strategies=result.layer_strategies,
        clock="work" if problem.options.deterministic else "wall",
        seconds=seconds,
        history=tuple(
            HistoryEntry(
                seconds=event.seconds, objective=event.objective, bound=event.bound
            )
            for event in result.history
        ),
        notes=tuple(notes_of(problem, planning, result)),
    )


def _caps(instance: PlacementInstance) -> Caps:
    caps, names = instance.caps, [load.name for load in instance.workloads]

    def texts(lowest: Lowest | None) -> dict[str, tuple[str, ...]] | None:
        if lowest is None:
            return None
        rows = (tuple(map(exact_text, row)) for row in lowest)
        return dict(zip(names, rows, strict=True))

    return Caps(
        gpu=caps.gpu,
        domain=caps.domain,
        gpu_lowest=texts(caps.gpu_lowest),
        domain_lowest=texts(caps.domain_lowest),
    )


def _layers(plan: PlacementPlan) -> list[Layer]:
    layers = []
    for index, number in enumerate(plan.layer_numbers):
        split = {
            str(expert): {rank: tuple(weights) for rank, weights in by_rank.items()}
            for (layer, expert), by_rank in sorted(plan.split.items())
            if layer == index
        }
        slots_GJ = plan.slots_LGJ[index]
        slots = tuple(
            tuple(expert for expert in row if expert >= 0) if held else ()
            for row, held in zip(
                slots_GJ.tolist(), (slots_GJ >= 0).any(axis=1).tolist(), strict=True
            )
        )
        layers.append(Layer(layer=number, slots=slots, split=split or None))
    return layers


def _groups(instance: PlacementInstance) -> Groups:
    ids = [gpu.id for gpu in instance.topology.gpus]
    layout = instance.layout
    return Groups(
        attention=tuple(
            AttentionGroup(dp_rank=rank, gpus=tuple(ids[gpu] for gpu in group))
            for rank, group in enumerate(layout.attention_groups)
        ),
        ep=layout.ep,
        replicas=layout.sets,
    )


def holdout_reason(problem: Problem, unseen: JointEvaluation | None) -> str | None:
    """Say why there is no held-out part, of whichever workload has none."""
    if unseen is not None:
        return None
    several = len(problem.homes) > 1
    return "; ".join(
        (f"{load.name}: " if several else "") + report.holdout_reason
        for load, report in zip(problem.instance.workloads, problem.homes, strict=True)
        if report.holdout_reason is not None
    )


def _workloads(
    problem: Problem, planning: JointEvaluation, unseen: JointEvaluation | None
) -> dict[str, Workload]:
    """Record every workload; the first one's parts are the manifest's own."""
    found = {}
    for at, load in enumerate(problem.instance.workloads):
        ratio = problem.homes[at].ratio
        own, seen = planning.each[at], None if unseen is None else unseen.each[at]
        found[load.name] = Workload(
            traffic=load.traffic,
            phase=problem.homes[at].phase,
            weight=exact_text(load.weight),
            tokens=float(own.tokens),
            objective=float(own.value),
            endpoint=load.endpoint,
            planning=_workload_part(own, ratio) if at else None,
            holdout=_workload_part(seen, ratio) if at and seen else None,
            context=_context(problem, own),
        )
    return found


def _context(problem: Problem, planning: Evaluation) -> ContextReport | None:
    """Record what replicated context costs; None where tokens go home."""
    instance = planning.instance
    if not TRAFFIC.get(instance.traffic).chained:
        return None
    cost = context_cost(
        instance.model,
        groups=instance.layout.groups_of_a_set,
        tp=instance.layout.tp,
        tokens=int(planning.tokens),
        kv_tokens=problem.bill.kv_tokens,
        free_G=instance.memory_limit_G - instance.memory_bytes_G,
    )
    return ContextReport(**asdict(cost))


def _workload_part(evaluation: Evaluation, home_ratio: float) -> WorkloadPart:
    return WorkloadPart(
        tokens=float(evaluation.tokens),
        objective=float(evaluation.value),
        imbalance=_imbalance(evaluation),
        prediction=_part_prediction(evaluation, home_ratio),
    )


def _objective(evaluation: JointEvaluation) -> ObjectiveReport:
    instance = evaluation.instance
    links = instance.topology.links
    scope_A = scope_of(links, instance.objective.link_classes)
    scope = sorted({link.link_class for link in links if scope_A[link.index]})
    objective = instance.objective
    return objective_report(
        objective.name,  # type: ignore[arg-type]
        objective.layers,  # type: ignore[arg-type]
        scope,
        evaluation.values,
        per_token=len(instance.workloads) > 1,
    )


def _imbalance(evaluation: Evaluation | JointEvaluation) -> ImbalanceReport:
    summary = evaluation.imbalance
    return ImbalanceReport(
        mean=summary.mean,
        worst=summary.worst,
        domain_mean=summary.domain_mean,
        domain_worst=summary.domain_worst,
    )


def _bound(instance: PlacementInstance, bound: Bound | None) -> BoundReport | None:
    """Record the bound and what its certificates prove when checked again."""
    if bound is None:
        return None
    certified = certified_bound(instance, bound)
    value = bound.value
    if certified is not None:
        # Checked in exact arithmetic a certificate may prove a little more.
        value = max(value, float(certified))
    return BoundReport(
        value=value,
        method=bound.method,
        of=bound.of,
        branching=bound.branching,
        layers=tuple(
            LayerBound(
                layer=number,
                value=layer.value,
                method=layer.method,
                of=layer.of,
                branching=layer.branching,
            )
            # Of several workloads the layers have no bound.
            for number, layer in zip(
                instance.model.moe_layers, bound.layers, strict=False
            )
        ),
        certificate=None if certified is None else certificate_of(bound),
        certified_exact=None if certified is None else exact_text(certified),
    )


def layer_predictions(evaluation: Evaluation) -> tuple[LayerPrediction, ...]:
    """Return what is predicted of every layer of a part."""
    instance = evaluation.instance
    chained = TRAFFIC.get(instance.traffic).chained
    return tuple(
        layer_prediction(
            LayerCounts(
                layer=instance.model.moe_layers[index],
                transfers=loads.transfers,
                loads_2A=loads.loads_2A,
                denominator=loads.denominator,
                imbalance=evaluation.gpu_imbalance_L[index],
                domain_imbalance=evaluation.domain_imbalance_L[index],
                combine=loads.combine if chained else None,
            ),
            links=instance.topology.links,
            kinds=instance.topology.kinds,
            domain_G=instance.layout.domain_G,
            q=instance.routes.q,
            message_bytes=instance.message_bytes,
        )
        for index, loads in enumerate(evaluation.layers)
    )


def _part_prediction(evaluation: Evaluation, home_ratio: float) -> PartPrediction:
    return PartPrediction(
        tokens_exact=exact_text(evaluation.tokens),
        q=str(evaluation.instance.routes.q),
        inter_domain_bytes_exact=exact_text(evaluation.inter_domain_bytes),
        home_tokens_max_over_mean=home_ratio,
        layers=layer_predictions(evaluation),
    )


def _prediction(planning: JointEvaluation, home_ratio: float) -> Prediction:
    evaluation, instance = planning.first, planning.first.instance
    dispatch, combine = instance.message_bytes
    over = lcm(*(loads.denominator for loads in evaluation.layers))
    total_G = sum(
        loads.pairs_G.astype(object) * (over // loads.denominator)
        for loads in evaluation.layers
    )
    pairs_G = [Fraction(int(pairs), over) for pairs in np.asarray(total_G)]
    part = _part_prediction(evaluation, home_ratio)
    return Prediction(
        **{name: getattr(part, name) for name in PartPrediction.model_fields},
        message_bytes=MessageBytes(dispatch=dispatch, combine=combine),
        gpus=gpu_predictions(
            [gpu.id for gpu in instance.topology.gpus],
            pairs_G,
            instance.memory_bytes_G,
            instance.memory_limit_G,
        ),
    )


def _baseline(scored: Scored, evaluation: JointEvaluation | None) -> Baseline:
    if evaluation is None:
        return Baseline(reason=scored.reason)
    notes = ("keeps two copies of an expert on one GPU",) if scored.duplicates else ()
    return Baseline(
        objective=_objective(evaluation), imbalance=_imbalance(evaluation), notes=notes
    )


def _holdout(
    unseen: JointEvaluation | None, baselines: Sequence[Scored], home_ratio: float
) -> Holdout | None:
    if unseen is None:
        return None
    return Holdout(
        tokens=float(unseen.tokens),
        objective=_objective(unseen),
        imbalance=_imbalance(unseen),
        baselines={base.name: _baseline(base, base.holdout) for base in baselines},
        prediction=_part_prediction(unseen.first, home_ratio),
    )
