"""The strategy ``search``: every layer annealed on its own, two threads at once."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np

from planner.arrays import IdArray
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Event, Limits, Progress, SolveResult
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
    repaired,
)
from planner.strategies.judging import judged_layer
from planner.strategies.local_search.layer import search_layer
from planner.strategies.local_search.tables import network_of, rows_of
from planner.workload.parts import CountsPart

RESERVE_SECONDS = 0.2
"""Kept back for judging the layers at the end."""


@STRATEGIES.register("search")
def solve_search(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Anneal every layer from its best start; see ``docs/search.md``.

    Never worse on the planning part than the best start that keeps the caps.
    """
    begun = time.perf_counter()
    plans = list(starts) or _own_starts(instance)
    if isinstance(instance.planning, CountsPart):
        note = "search needs the tokens of a trace; the best start was kept"
        return _result(instance, _best_starts(instance, plans), "complete", note)
    chosen = _best_starts(instance, plans)
    network = network_of(instance)
    layers = instance.layer_count
    threads = max(1, min(limits.threads, layers))
    budget = limits.seconds - (time.perf_counter() - begun) - RESERVE_SECONDS
    each = max(0.01, budget * threads / layers)
    values = [judged_layer(instance, at, slots, {}) for at, slots in enumerate(chosen)]

    def improve(layer: int) -> tuple[int, IdArray, int]:
        opened = time.perf_counter()
        rows = rows_of(instance, layer)
        now = time.perf_counter()
        left = limits.seconds - (now - begun) - RESERVE_SECONDS
        found = search_layer(
            network,
            rows,
            chosen[layer],
            seconds=max(0.0, min(each - (now - opened), left)),
            seed=limits.seed * 7919 + layer,
        )
        return layer, found.slots_GJ, found.proposals

    proposals = 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for layer, slots_GJ, tried in pool.map(improve, range(layers)):
            proposals += tried
            judged = judged_layer(instance, layer, slots_GJ, {})
            if (judged[1], judged[0]) < (values[layer][1], values[layer][0]):
                chosen[layer], values[layer] = slots_GJ, judged
            if progress is not None:
                value = float(sum((each[0] for each in values), Fraction(0)))
                seconds = time.perf_counter() - begun
                progress(Event(seconds=seconds, objective=value, bound=None))
    note = f"search tried {proposals:,} moves"
    return _result(instance, chosen, "limit", note)


def _result(
    instance: PlacementInstance, chosen: list[IdArray], reason: str, note: str
) -> SolveResult:
    plan = PlacementPlan(
        layer_numbers=instance.model.moe_layers, slots_LGJ=np.stack(chosen)
    )
    return SolveResult(
        plan=plan,
        reason=reason,
        limit="seconds" if reason == "limit" else None,
        layer_strategies=("search",) * instance.layer_count,
        notes=(note,),
    )


def _own_starts(instance: PlacementInstance) -> list[PlacementPlan]:
    plans = []
    for name in BASELINES.names():
        try:
            plans.append(repaired(instance, published_plan(instance, name)))
        except AbsentBaselineError:
            continue
    return plans


def _best_starts(
    instance: PlacementInstance, plans: Sequence[PlacementPlan]
) -> list[IdArray]:
    """Return for every layer the start that keeps the caps best, then is best."""
    chosen: list[IdArray] = []
    for layer in range(instance.layer_count):
        judged = [
            (judged_layer(instance, layer, plan.slots_LGJ[layer], {})[::-1], at)
            for at, plan in enumerate(plans)
        ]
        chosen.append(plans[min(judged)[1]].slots_LGJ[layer].copy())
    return chosen
