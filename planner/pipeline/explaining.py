"""Why a plan is as good as it is, and what would make it better, in figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

from planner.errors import LimitError, ManifestError, UsageError
from planner.evaluator import JointEvaluation, evaluate_planning
from planner.explain import (
    LayerBinding,
    MemoryRow,
    layer_bindings,
    memory_row,
    why_links_cannot_gain,
)
from planner.explain.causes.caps import least_copy_load
from planner.explain.relax import RELAXATIONS, Question, Relaxation
from planner.explain.relax.judged import (
    Outcome,
    Proof,
    Prover,
    Resolved,
    Solver,
    judged,
)
from planner.instance import PlacementInstance
from planner.manifest import Manifest
from planner.pipeline.certifying import certified_whole, evidence
from planner.pipeline.reopening import reopen
from planner.pipeline.resolve import FREE
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.verifier.certificates import Certificate, Evidence, proven

MEAN: Certificate = {"kind": "mean_pairs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadBinding:
    """What binds under one workload of the plan."""

    name: str
    layers: tuple[LayerBinding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a plan is as good as it is.

    ``value``, ``bound`` and all outcomes are in ``unit``, of the planning part.
    """

    plan: str
    objective: str
    unit: str
    value: float
    bound: float | None
    status: str
    resolve_seconds: float
    memory: MemoryRow
    workloads: tuple[WorkloadBinding, ...]
    relaxations: tuple[Outcome, ...]
    notes: tuple[str, ...]


def explain(
    plan: str | Path, *, by: float = 0.1, cap_step: float = 0.05, resolve: float = 0.0
) -> Explanation:
    """Say what binds a plan and what relaxing it is worth.

    Parameters
    ----------
    by
        Share by which links are made faster.
    cap_step
        By how much an imbalance cap is raised.
    resolve
        Seconds to re-solve each relaxation from the plan; 0 re-solves nothing.

    Raises
    ------
    ManifestError
        If it does not fit its schema, or an input has another digest.
    """
    _check_steps(by, cap_step, resolve)
    opened = reopen(plan)
    manifest, instance = opened.manifest, opened.problem.instance
    if opened.problem.options.policy == FREE:
        raise UsageError(
            f"planner explain asks what a slot more on every GPU gives: plans of "
            f"--policy {FREE} have no such slot; explain one of --policy uniform"
        )
    planning = evaluate_planning(instance, opened.plan)
    question = Question(
        instance=instance, plan=opened.plan, planning=planning, by=by, cap_step=cap_step
    )
    blocked = why_links_cannot_gain(instance)
    return Explanation(
        plan=str(plan),
        objective=f"{manifest.objective.name} ({manifest.objective.layers})",
        unit=manifest.objective.unit,
        value=float(planning.value),
        bound=None if manifest.bound is None else manifest.bound.value,
        status=manifest.status,
        resolve_seconds=resolve,
        memory=memory_row(
            instance, one_expert=opened.problem.options.policy != "uniform"
        ),
        workloads=_workloads(manifest, planning),
        relaxations=_relaxed(question, manifest, resolve),
        notes=() if blocked is None else (blocked,),
    )


def _check_steps(by: float, cap_step: float, resolve: float) -> None:
    for name, value in (("by", by), ("cap-step", cap_step)):
        if not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value} must be finite and > 0")
    if not 0 <= resolve < float("inf"):
        raise UsageError(f"--resolve {resolve} must be finite and >= 0")


def _relaxed(
    question: Question, manifest: Manifest, resolve: float
) -> tuple[Outcome, ...]:
    """Judge every relaxation that applies, and solve again where asked."""
    relaxations = [
        each for name in RELAXATIONS.names() for each in RELAXATIONS.get(name)(question)
    ]
    limits = Limits(seconds=resolve, seed=manifest.provenance.seed)
    return judged(
        question,
        relaxations,
        prover=_prover(manifest),
        solver=_solver(limits) if resolve else None,
    )


def _workloads(
    manifest: Manifest, planning: JointEvaluation
) -> tuple[WorkloadBinding, ...]:
    """Say what binds every layer of every workload."""
    workloads = planning.instance.workloads
    bounds = _bounds(manifest, single=len(workloads) == 1)
    return tuple(
        WorkloadBinding(name=workload.name, layers=layer_bindings(evaluation, *bounds))
        for workload, evaluation in zip(workloads, planning.each, strict=True)
    )


def _certificates(manifest: Manifest) -> list[Certificate | None]:
    """Return the certificate of every layer, None where there is none."""
    nothing: list[Certificate | None] = [None] * len(manifest.layers)
    if manifest.bound is None or manifest.bound.certificate is None:
        return nothing
    whole: Mapping[str, Any] = manifest.bound.certificate
    return list(whole["layers"]) if whole.get("kind") == "layers" else nothing


def _bounds(
    manifest: Manifest, *, single: bool
) -> tuple[list[tuple[float, str] | None], list[Certificate | None]]:
    """Return bound and certificate by layer; of several workloads none has its own."""
    nothing: list[Any] = [None] * len(manifest.layers)
    if manifest.bound is None or not single:
        return nothing, nothing
    recorded: list[tuple[float, str] | None] = [
        (layer.value, layer.method) for layer in manifest.bound.layers
    ]
    return recorded or nothing, _certificates(manifest)


def _prover(manifest: Manifest) -> Prover:
    """Prove each layer again in the eased problem by the certificates at hand.

    Prices that were best before stay valid, if not best; loads alone give two more
    certificates under ``gpu_tokens``. What the solver said of the plan's own problem
    holds of an eased one where every plan keeps a share of its objective.
    """
    certificates = _certificates(manifest)
    claimed = Fraction(0) if manifest.bound is None else Fraction(manifest.bound.value)

    def prove(relaxation: Relaxation) -> Proof | None:
        bound = Fraction(0)
        if len(relaxation.instance.workloads) == 1:
            bound = _proven(relaxation, certificates)
        said = claimed * relaxation.least_share
        if said > bound:
            return Proof(bound=said, by="solver")
        return Proof(bound=bound, by="certificate") if bound else None

    return prove


def _proven(
    relaxation: Relaxation, certificates: Sequence[Certificate | None]
) -> Fraction:
    layers = []
    for layer, given in enumerate(certificates):
        offered = _of_loads(relaxation.instance, layer)
        if given is not None:
            adapted = relaxation.adapted
            offered.append(adapted(given) if adapted else given)
        seen = evidence(relaxation.instance, layer)
        proofs = [_proof(each, seen) for each in offered]
        layers.append(max(proofs, default=Fraction(0)))
    return certified_whole(relaxation.instance, tuple(layers))


def _proof(certificate: Certificate, seen: Evidence) -> Fraction:
    """Return what a certificate proves; 0 where it does not fit the eased problem."""
    try:
        return proven(certificate, seen)
    except ManifestError:
        return Fraction(0)


def _of_loads(instance: PlacementInstance, layer: int) -> list[Certificate]:
    if instance.objective.name != "gpu_tokens":
        return []
    seen = evidence(instance, layer)
    largest_E = [max(loads) for loads in zip(*seen.load_SE, strict=True)]
    over = lcm(*(load.denominator for load in largest_E))
    whole = [int(load * over) for load in largest_E]
    least, _ = least_copy_load(whole, instance.slot_count)
    level = least / over
    return [MEAN, {"kind": "count", "level": f"{level.numerator}/{level.denominator}"}]


def _solver(limits: Limits) -> Solver:
    """Re-solve from a plan with the portfolio; it never returns a worse one."""

    def solve(instance: PlacementInstance, start: PlacementPlan) -> Resolved | None:
        try:
            result = STRATEGIES.get("auto")(instance, limits, [start])
        except LimitError:
            return None
        return Resolved(
            value=evaluate_planning(instance, result.plan).value,
            bound=None if result.bound is None else Fraction(result.bound.value),
        )

    return solve
