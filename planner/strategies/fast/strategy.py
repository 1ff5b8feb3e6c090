"""The strategy ``fast``: every layer's GPUs evened out in milliseconds."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Bound,
    LayerBound,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.baselines.base import expert_loads
from planner.strategies.fast.kernel import place_layers
from planner.workload.parts import CountsPart

QUICK, LONG = 6, 60
"""Moves per expert in a layer."""
LONG_SECONDS = 15e-6
"""Time limit per layer and expert from which there are more moves: what they take
on one core, and about as much again."""


@STRATEGIES.register("fast")
def solve_fast(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Make the heaviest GPU of every layer light; links are not looked at.

    Loads are those of the planning part, shared evenly by an expert's copies. The
    result depends on the seed and on which of the two budgets of moves the time
    limit allows, never on the clock or on threads. ``starts`` are not used: judging
    one takes longer than placing anew.
    """
    load_LE = expert_loads(instance)
    slots_LGJ, copies_LE = place(
        load_LE,
        _domains(instance),
        instance.slots_per_gpu,
        moves=moves_within(limits.seconds, load_LE),
        limits=limits,
    )
    return SolveResult(
        plan=PlacementPlan(
            layer_numbers=instance.model.moe_layers, slots_LGJ=slots_LGJ
        ),
        reason="complete",
        bound=_bound(instance, load_LE, copies_LE),
        layer_strategies=("fast",) * instance.layer_count,
        notes=_notes(instance),
    )


def moves_within(seconds: float, load_LE: IntArray) -> int:
    """Return the moves per layer that a time limit allows: one of two budgets."""
    per_expert = LONG if seconds >= LONG_SECONDS * load_LE.size else QUICK
    return int(per_expert * load_LE.shape[1])


def place(
    load_LE: IntArray,
    domain_G: IntArray,
    slots_per_gpu: int,
    *,
    moves: int,
    limits: Limits,
) -> tuple[IdArray, IntArray]:
    """Return the slots [L, ep, J], and the copies of least greatest load per copy.

    Layers are divided among the threads; each has random numbers of its own.
    """
    layers = load_LE.shape[0]
    slots_LGJ = np.zeros((layers, domain_G.size, slots_per_gpu), dtype=np.int16)
    copies_LE = np.zeros(load_LE.shape, dtype=np.int64)
    numbers = [limits.seed * 1_000_003 + layer + 1 for layer in range(layers)]
    random_L = np.asarray(
        [number * 0x9E3779B97F4A7C15 % 2**64 | 1 for number in numbers],
        dtype=np.uint64,
    )
    loads = load_LE.astype(np.float64)

    def run(part: slice) -> None:
        place_layers(
            loads[part],
            domain_G,
            moves,
            random_L[part],
            slots_LGJ[part],
            copies_LE[part],
        )

    threads = max(1, min(limits.threads, layers))
    ends = [layers * thread // threads for thread in range(threads + 1)]
    parts = [slice(*pair) for pair in pairwise(ends)]
    if threads == 1:
        run(parts[0])
    else:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            list(pool.map(run, parts))
    return slots_LGJ, copies_LE


def _domains(instance: PlacementInstance) -> IntArray:
    """Return the domains of the first EP set's GPUs, numbered from 0."""
    layout = instance.layout
    _, domain_G = np.unique(layout.domain_G[: layout.ep], return_inverse=True)
    return domain_G.astype(np.int64)


def _bound(
    instance: PlacementInstance, load_LE: IntArray, copies_LE: IntArray
) -> Bound | None:
    """Bound the heaviest GPU where every copy's load is known: on counts tables."""
    objective = instance.objective
    known = isinstance(instance.planning, CountsPart)
    if objective.name != "gpu_tokens" or objective.layers == "pipelined" or not known:
        return None
    return whole_bound(
        [
            layer_bound(instance, load_E, copies_E)
            for load_E, copies_E in zip(load_LE, copies_LE, strict=True)
        ],
        objective.layers,
    )


def layer_bound(
    instance: PlacementInstance, load_E: IntArray, copies_E: IntArray
) -> LayerBound:
    """Return the mean, or if greater the load that the copies suffice for.

    Below the greatest load per copy of ``copies_E`` there are too few slots, which
    is counted here without rounding; any split of an expert among its copies leaves
    one of them its share or more, so both hold for every selection.
    """
    gpus, layout = instance.layout.gpu_count, instance.layout
    mean = Fraction(int(load_E.sum()), gpus)
    most = int(np.argmax(load_E / copies_E))
    load, copies = int(load_E[most]), int(copies_E[most])
    level = Fraction(load * layout.ep, copies * gpus)
    if level > mean:
        needed = sum(int(each) * copies // load + 1 for each in load_E)
        if needed > instance.slot_count:
            return LayerBound(
                value=float(level),
                method="count",
                of=f"{instance.traffic}/weighted",
                certificate={"kind": "count", "level": str(level)},
            )
    return LayerBound(
        value=float(mean),
        method="mean",
        of=f"{instance.traffic}/weighted",
        certificate={"kind": "mean_pairs"},
    )


def _notes(instance: PlacementInstance) -> tuple[str, ...]:
    if instance.objective.name == "gpu_tokens":
        return ()
    return ("fast evens out GPUs and domains; it does not look at links",)
