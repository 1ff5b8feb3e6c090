"""Faults and harmless changes, planted into a worker to see what the gate says.

Faults act where modules meet (problem in, strategy's result, manifest out), so they
stay meaningful when the inside of a module changes.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from planner.manifest import Manifest
from planner.pipeline import feasibility, fill, problem, solving
from planner.strategies.base import STRATEGIES, Limits, SolveResult, Strategy
from planner.strategies.baselines.base import BASELINES
from planner.traffic import selection
from planner.workload import messages

Patch = Callable[[], None]
FAULTS: dict[str, tuple[str, Patch]] = {}
HARMLESS: dict[str, tuple[str, Patch]] = {}


def fault(text: str) -> Callable[[Patch], Patch]:
    """Register a fault under its function's name."""
    return _into(FAULTS, text)


def harmless(text: str) -> Callable[[Patch], Patch]:
    """Register a change that must not matter."""
    return _into(HARMLESS, text)


def plant(name: str) -> None:
    """Apply a fault or a harmless change to this process."""
    (FAULTS | HARMLESS)[name][1]()


def _into(place: dict[str, tuple[str, Patch]], text: str) -> Callable[[Patch], Patch]:
    def add(patch: Patch) -> Patch:
        place[patch.__name__.replace("_", "-")] = (text, patch)
        return patch

    return add


def _forget(*causes: str) -> None:
    """Leave causes of infeasibility unseen."""
    find = feasibility.findings
    feasibility.findings = lambda setup: {
        name: finding for name, finding in find(setup).items() if name not in causes
    }


def _on_problem(change: Callable[[problem.Problem], problem.Problem]) -> None:
    """Change what ``solve`` plans for, behind its back."""
    build = solving.build_problem
    solving.build_problem = lambda *given, **named: change(build(*given, **named))


def _on_instance(**changes: Callable[[Any], Any]) -> None:
    def change(found: problem.Problem) -> problem.Problem:
        values = {name: new(found.instance) for name, new in changes.items()}
        return replace(found, instance=replace(found.instance, **values))

    _on_problem(change)


def _on_strategies(get: Callable[[str], Strategy]) -> None:
    """Change which strategy the pipeline finds under a name."""
    solving.STRATEGIES = type("Changed", (), {"get": staticmethod(get)})


def _on_result(change: Callable[[Any, SolveResult], SolveResult]) -> None:
    """Change what every strategy hands back to the pipeline."""

    def changed(name: str) -> Strategy:
        strategy = STRATEGIES.get(name)
        return lambda instance, *given, **named: change(
            instance, strategy(instance, *given, **named)
        )

    _on_strategies(changed)


def _on_slots(change: Callable[[Any], None]) -> None:
    def changed(instance: Any, result: SolveResult) -> SolveResult:
        slots_LGJ = result.plan.slots_LGJ.copy()
        change(slots_LGJ)
        return replace(result, plan=replace(result.plan, slots_LGJ=slots_LGJ))

    _on_result(changed)


def _on_manifest(change: Callable[[Manifest], Manifest]) -> None:
    made = solving.fill_manifest
    solving.fill_manifest = lambda *given, **named: change(made(*given, **named))


def _on_bound(factor: float) -> None:
    def changed(instance: Any, result: SolveResult) -> SolveResult:
        if result.bound is None:
            return result
        bound = replace(result.bound, value=result.bound.value * factor)
        return replace(result, bound=bound)

    _on_result(changed)


@fault("the imbalance cap is forgotten")
def cap_dropped() -> None:
    """A constraint that is not there any more."""
    _on_instance(caps=lambda instance: type(instance.caps)())


@fault("a cap below its floor is not noticed")
def floor_unchecked() -> None:
    """An infeasible problem is worked on."""
    _forget("imbalance_cap", "domain_imbalance_cap")


@fault("memory is not checked")
def memory_unchecked() -> None:
    """Plans that do not fit."""
    _forget("memory")


@fault("memory needs are reported too small")
def memory_underrated() -> None:
    """A wrong promise in the manifest."""
    _on_instance(memory_bytes_G=lambda instance: instance.memory_bytes_G // 2)


@fault("recorded homes are ignored")
def homes_ignored() -> None:
    """Tokens come from elsewhere."""
    build = solving.build_problem
    solving.build_problem = lambda sources, options: build(
        sources, replace(options, homes="by_token")
    )


@fault("the planner tunes itself on the held-out part too")
def holdout_leaked() -> None:
    """A result that looks better than it is."""
    build = solving.build_problem
    solving.build_problem = lambda sources, options: build(
        sources, replace(options, holdout="0")
    )


@fault("dispatch and combine bytes are swapped")
def bytes_swapped() -> None:
    """Evaluator and verifier disagree."""
    _on_instance(message_bytes=lambda instance: instance.message_bytes[::-1])


@fault("message bytes are wrong for evaluator and verifier alike")
def bytes_wrong_everywhere() -> None:
    """A fault in code that both sides share: only fixed plans can show it."""
    right = messages.message_bytes

    def wrong(*given: Any, **named: Any) -> tuple[int, int]:
        dispatch, combine = right(*given, **named)
        return dispatch, combine // 2

    from planner.verifier import setting

    for module in (problem, setting):
        module.message_bytes = wrong


@fault("the tie rule of nearest takes the first copy")
def tie_rule_broken() -> None:
    """Rule 17's last case without its rotation."""
    right = selection.nearest_GE

    def wrong(slots_GJ: Any, experts: int, layout: Any) -> Any:
        chosen_GE = right(slots_GJ, experts, layout).copy()
        table = selection.copy_table(slots_GJ, experts)
        for gpu, expert in np.ndindex(chosen_GE.shape):
            domain = layout.domain_G
            if domain[chosen_GE[gpu, expert]] != domain[gpu]:
                chosen_GE[gpu, expert] = table.rank_EM[expert, 0]
        return chosen_GE

    selection.nearest_GE = wrong


@fault("the solve is cut off at once")
def solve_capped() -> None:
    """A limit in the wrong unit."""
    solving.Limits = lambda **named: Limits(**(named | {"seconds": 0.02}))


@fault("a baseline is returned as the plan")
def baseline_returned() -> None:
    """Optimization that does nothing."""
    _on_strategies(lambda name: STRATEGIES.get("contiguous"))


@fault("the search does not search")
def search_idle() -> None:
    """The start comes back all but unchanged."""
    from planner.strategies.search import strategy

    strategy.PROPOSALS_PER_SLOT = 1


@fault("GPUs are off by one when the plan is written")
def gpus_shifted() -> None:
    """A legal plan, but not the one that was found."""
    _on_slots(lambda slots_LGJ: np.copyto(slots_LGJ, np.roll(slots_LGJ, 1, axis=1)))


@fault("an expert sits twice on a GPU")
def expert_doubled() -> None:
    """A broken plan."""

    def double(slots_LGJ: Any) -> None:
        slots_LGJ[:, 0, -1] = slots_LGJ[:, 0, 0]

    _on_slots(double)


@fault("the bound is reported above the objective")
def bound_inflated() -> None:
    """A proof of something false."""
    _on_bound(1.3)


@fault("the bound is 5 % weaker")
def bound_deflated() -> None:
    """Still true, but it proves less."""
    _on_bound(0.95)


@fault("the objective is reported 1 % too low")
def objective_flattered() -> None:
    """A manifest that lies."""

    def flatter(manifest: Manifest) -> Manifest:
        value = Fraction(manifest.objective.value_exact) * Fraction(99, 100)
        exact = f"{value.numerator}/{value.denominator}"
        update = {"value": float(value), "value_exact": exact}
        objective = manifest.objective.model_copy(update=update)
        return manifest.model_copy(update={"objective": objective})

    _on_manifest(flatter)


@fault("every plan is called optimal")
def optimum_claimed() -> None:
    """A status without a proof."""
    right = fill.status_of
    fill.status_of = lambda value, bound: ("proven_optimal", right(value, bound)[1])


@fault("the process dies")
def crash() -> None:
    """Out of memory, a fault in a solver."""
    solving.fill_manifest = lambda *given, **named: os._exit(9)


@harmless("every layer's judge is called through a wrapper")
def judge_wrapped() -> None:
    """A refactoring that calls differently."""
    from planner.strategies.search import strategy

    judge = strategy.judged_layer
    strategy.judged_layer = lambda *given: judge(*given)


@harmless("a new strategy is registered")
def strategy_added() -> None:
    """A new file of the family."""
    STRATEGIES.register("one_more")(STRATEGIES.get("contiguous"))


@harmless("a new baseline is compared with")
def baseline_added() -> None:
    """A new file of the family: one more yardstick."""
    BASELINES.register("one_more")(BASELINES.get("contiguous"))


@harmless("the history is not recorded")
def history_dropped() -> None:
    """Provenance is no quality."""

    def drop(manifest: Manifest) -> Manifest:
        provenance = manifest.provenance.model_copy(update={"history": ()})
        return manifest.model_copy(update={"provenance": provenance})

    _on_manifest(drop)


@harmless("notes are worded otherwise")
def notes_reworded() -> None:
    """Words are no quality."""

    def reword(manifest: Manifest) -> Manifest:
        notes = tuple(note.upper() for note in manifest.provenance.notes)
        provenance = manifest.provenance.model_copy(update={"notes": notes})
        return manifest.model_copy(update={"provenance": provenance})

    _on_manifest(reword)


@harmless("manifests are written without spaces")
def manifest_compact() -> None:
    """JSON is JSON."""
    from planner.manifest import files

    files.pretty_json = files.canonical_json
