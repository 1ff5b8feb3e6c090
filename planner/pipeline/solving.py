"""Load a problem, plan it, judge the plan, return the manifest."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from planner import clock
from planner.errors import InfeasibleError, InputError, LimitError, UsageError
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.manifest import Manifest
from planner.options import AUTO, SolveOptions
from planner.pipeline.constraining import (
    check_constraints,
    constraint_notes,
    legal_plan,
)
from planner.pipeline.dumping import dump_model
from planner.pipeline.fill import fill_manifest
from planner.pipeline.free import freed, opened
from planner.pipeline.growing import grown, settled, shifted
from planner.pipeline.nesting import check_nesting
from planner.pipeline.placing import check_placing, planned
from planner.pipeline.problem import (
    Problem,
    Sources,
    TraceLike,
    build_problem,
    trace_list,
)
from planner.pipeline.resolve import FREE, check_free, check_single
from planner.pipeline.sources import Source
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits, Progress, SolveResult
from planner.strategies.judging import excess_of
from planner.strategies.legal import keeps

Announce = Callable[[str], None]


def load(
    topology: Source,
    *,
    model: Source | None = None,
    trace: TraceLike | Sequence[TraceLike] | None = None,
    options: SolveOptions | None = None,
) -> Problem:
    """Load and check a placement problem without solving it.

    Parameters are those of :func:`solve`.
    """
    traces = trace_list(trace)
    sources = Sources(topology=topology, model=model, traces=traces, base=Path.cwd())
    return build_problem(sources, options or SolveOptions())


def solve(
    topology: Source,
    *,
    model: Source | None = None,
    trace: TraceLike | Sequence[TraceLike] | None = None,
    options: SolveOptions | None = None,
    progress: Progress | None = None,
    announce: Announce | None = None,
    base: Path | None = None,
    model_file: Path | None = None,
) -> Manifest:
    """Plan the placement of a model's experts on a cluster.

    Parameters
    ----------
    topology
        Bundled name, file, or an inline ``moe-topology/1`` object.
    model
        Preset, file or inline ``moe-model/1`` object; default: the bundled one
        that fits the trace.
    trace
        ``FILE[#WORKLOAD][:WEIGHT[:MODE[:PHASE]]]``, a bundled name or inline
        counts, or several of them (rule 25); default: what the topology file names,
        else the bundled tiny model's.
    progress
        Called with each :class:`~planner.strategies.base.Event`.
    announce
        Called once with the sentence that says what is being planned.
    base
        Folder that recorded paths are relative to; default: the current one.
    model_file
        Where to write the linear model of all layers (MPS), before it is solved.

    Returns
    -------
    Manifest
        ``moe-plan/1``, judged on the planning and the held-out part.

    Raises
    ------
    PlannerError
        With the exit code and HTTP status of its kind (``planner.errors``).
    """
    begun = time.perf_counter()
    options = options or SolveOptions()
    STRATEGIES.get(options.strategy)
    sources = Sources(
        topology=topology,
        model=model,
        traces=trace_list(trace),
        base=base or Path.cwd(),
    )
    problem = _built(sources, options)
    starts = _checked(problem, dumped=model_file is not None)
    problem = settled(problem, dumped=model_file is not None)
    if announce is not None:
        announce(problem.headline)
    if model_file is not None:
        dump_model(problem, model_file)
    if not options.deterministic:
        ready = time.perf_counter() - begun
        later = None if progress is None else shifted(progress, ready)
        problem, result = _planned(problem, sources, later, starts)
        return _recorded(problem, result, time.perf_counter() - begun)
    with clock.counting_work():
        problem, result = _planned(problem, sources, progress, starts)
        seconds = clock.now()
    return _recorded(problem, result, seconds)


def _recorded(problem: Problem, result: SolveResult, seconds: float) -> Manifest:
    """Check what was asked to be kept, then judge the plan and record everything."""
    check_kept(problem.instance, result.plan)
    notes = (*result.notes, *constraint_notes(problem.instance, result.plan))
    noted = replace(result, notes=notes)
    return fill_manifest(problem, problem.options.strategy, noted, seconds=seconds)


def _built(sources: Sources, options: SolveOptions) -> Problem:
    """Return the problem, where all layers share memory that of the fewest slots."""
    if options.policy != FREE:
        return build_problem(sources, options)
    return opened(options, lambda other: build_problem(sources, other))


def _checked(problem: Problem, *, dumped: bool) -> list[PlacementPlan]:
    """Refuse what does not go together; return a plan that keeps the constraints."""
    instance, options = problem.instance, problem.options
    check_single(instance, options.strategy)
    check_nesting(instance, options.strategy)
    check_constraints(instance, options.strategy)
    check_placing(problem, dumped=dumped)
    check_free(instance, options, dumped=dumped)
    if instance.constraints is not None and options.groups != "auto":
        raise UsageError(
            "--constraints and --previous do not go with --groups placed; leave it out"
        )
    return legal_plan(instance)


def _limits(options: SolveOptions) -> Limits:
    """Return when to stop."""
    return Limits(
        seconds=options.time_limit,
        gap=options.gap,
        threads=options.threads or os.cpu_count() or 1,
        seed=options.seed,
    )


def _planned(
    problem: Problem,
    sources: Sources,
    progress: Progress | None,
    starts: list[PlacementPlan],
) -> tuple[Problem, SolveResult]:
    """Plan, and name the causes where that is proven impossible."""
    try:
        return _with_slots(problem, sources, progress, starts)
    except InfeasibleError as error:
        raise problem.feasibility.proven(error) from error


def _with_slots(
    problem: Problem,
    sources: Sources,
    progress: Progress | None,
    starts: list[PlacementPlan],
) -> tuple[Problem, SolveResult]:
    """Run the strategy, with more and more slots where the options leave them open."""
    strategy, limits = (
        STRATEGIES.get(problem.options.strategy),
        _limits(problem.options),
    )

    def build(options: SolveOptions) -> Problem:
        return build_problem(sources, options)

    if problem.options.policy == FREE:
        return freed(problem, build, strategy, limits, progress)
    if problem.options.redundant != AUTO:
        if starts:
            return problem, strategy(problem.instance, limits, starts, progress)
        return planned(problem, strategy, limits, progress)
    return grown(problem, build, strategy, limits, progress)


def check_kept(instance: PlacementInstance, plan: PlacementPlan) -> None:
    """Refuse a plan that breaks a constraint, or an imbalance cap (rule 26).

    Raises
    ------
    LimitError
        A better plan may exist: nothing was proven.
    """
    if not keeps(instance, plan):
        raise LimitError(
            "no plan that keeps the constraints was found before the limit; raise "
            "--time-limit or use --strategy auto"
        )
    if instance.caps.gpu is None and instance.caps.domain is None:
        return
    judged = evaluate_planning(instance, plan)
    for index, number in enumerate(instance.model.moe_layers):
        excess = max(excess_of(each, index) for each in judged.each)
        if excess > 0:
            raise LimitError(
                f"no plan within the imbalance caps was found before the limit: layer "
                f"{number} exceeds them by {float(excess):.4f}; raise --time-limit, "
                "--imbalance-cap or --domain-imbalance-cap, or use --strategy auto"
            )


def check_writable(output: Path | None) -> None:
    """Refuse an output that could not be written, before any work is done."""
    if output is None:
        return
    folder = output.parent if output.parent != Path() else Path.cwd()
    if not folder.is_dir():
        raise InputError("is not a folder", where=str(folder), fix="create it first")
    if output.is_dir():
        raise InputError("is a folder", where=str(output), fix="give a file name")
    if not os.access(folder, os.W_OK):
        raise InputError("cannot be written", where=str(folder))
