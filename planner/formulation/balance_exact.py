"""Small layers under ``even``, exactly: GPUs by what they hold, not by number.

Copies of expert e are of one size, w_e/r, once it is known that there are r of them.
A *pattern* is what one GPU may hold: J different experts, each with its number of
copies. How many GPUs have each pattern is all that matters, so equal GPUs are no
symmetry of this model. With q[e,r] ∈ {0,1} and n[p] ∈ {0, …, G}::

    Σ_r q[e,r] = 1,   Σ_{p ∋ (e,r)} n[p] = r·q[e,r],   Σ_p n[p] = G

over the patterns whose load is at most a level. Levels are loads of patterns; the
least one that is feasible is found by bisection. All numbers are integers: loads are
multiplied by the least common multiple of 1, …, R.

Axes: E experts, R numbers of copies, G GPUs, J slots of a GPU.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

import numpy as np
from ortools.sat.python import cp_model

from planner.arrays import IdArray
from planner.errors import SolverError

MOST_PATTERNS = 60_000

Item = tuple[int, int]
"""An expert and its number of copies."""
Pattern = tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenSolution:
    """A placement under ``even``, and a load that none stays below.

    They are equal if the time sufficed.
    """

    slots_GJ: IdArray
    value: Fraction
    bound: Fraction


def solve_even(
    load_E: Sequence[int], gpus: int, slots_per_gpu: int, seconds: float
) -> EvenSolution:
    """Return the placement whose busiest GPU carries least, copies sharing evenly.

    Raises
    ------
    SolverError
        If there are more than 60,000 patterns (12 experts on 8 GPUs of 2 slots have
        1,650), or no placement was found in time.
    """
    deadline = time.monotonic() + seconds
    most = max(1, min(gpus, gpus * slots_per_gpu - len(load_E) + 1))
    unit = lcm(*range(1, most + 1))
    patterns = _patterns(load_E, unit, most, slots_per_gpu)
    floor = -(-sum(load_E) * unit // gpus)
    levels = sorted({load for load, _ in patterns if load >= floor})
    low, high = 0, len(levels)
    best: list[Pattern] | None = None
    # Invariant: levels before ``low`` are infeasible, and so is it to beat ``high``'s.
    while low < high and time.monotonic() < deadline:
        middle = min((low + high) // 2, len(levels) - 1)
        allowed = [pattern for load, pattern in patterns if load <= levels[middle]]
        status, found = _feasible(
            allowed, len(load_E), gpus, most, deadline - time.monotonic()
        )
        if status == cp_model.INFEASIBLE:
            low = middle + 1
        elif found is None:
            break
        else:
            best, high = found, middle
    if best is None:
        raise SolverError("no placement was found in time")
    value = max(_load(pattern, load_E) for pattern in best)
    bound = Fraction(levels[low], unit) if low < high else value
    return EvenSolution(
        slots_GJ=np.asarray(
            [[expert for expert, _ in pattern] for pattern in best], dtype=np.int16
        ),
        value=value,
        bound=bound,
    )


def _load(pattern: Pattern, load_E: Sequence[int]) -> Fraction:
    return sum(
        (Fraction(load_E[expert], copies) for expert, copies in pattern), Fraction(0)
    )


def _patterns(
    load_E: Sequence[int], unit: int, most: int, slots: int
) -> list[tuple[int, Pattern]]:
    """Return every pattern with its load in units of 1/``unit``."""
    grown: list[tuple[int, Pattern]] = [(0, ())]
    for _ in range(slots):
        grown = [
            (load + load_E[expert] * unit // copies, (*pattern, (expert, copies)))
            for load, pattern in grown
            for expert in range(pattern[-1][0] + 1 if pattern else 0, len(load_E))
            for copies in range(1, most + 1)
        ]
        if len(grown) > MOST_PATTERNS:
            raise SolverError(f"more than {MOST_PATTERNS} patterns of a GPU")
    return grown


def _feasible(
    patterns: Sequence[Pattern], experts: int, gpus: int, most: int, seconds: float
) -> tuple[int, list[Pattern] | None]:
    """Return the solver's status and each GPU's pattern, if there is a solution."""
    model = cp_model.CpModel()
    number_P = [model.new_int_var(0, gpus, "") for _ in patterns]
    holding: dict[Item, list[cp_model.IntVar]] = {}
    for pattern, number in zip(patterns, number_P, strict=True):
        for item in pattern:
            holding.setdefault(item, []).append(number)
    for expert in range(experts):
        chosen_R = [model.new_bool_var("") for _ in range(most)]
        model.add_exactly_one(chosen_R)
        for copies, chosen in enumerate(chosen_R, start=1):
            placed = holding.get((expert, copies), [])
            model.add(sum(placed) == copies * chosen)
    model.add(sum(number_P) == gpus)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = max(0.01, seconds)
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return int(status), None
    return int(status), [
        pattern
        for pattern, number in zip(patterns, number_P, strict=True)
        for _ in range(solver.value(number))
    ]
