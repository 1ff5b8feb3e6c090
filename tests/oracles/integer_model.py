"""Placements of single copies as integers alone, for CP-SAT: a second formulation.

With one copy of every expert the load of a link is a sum over experts: what GPU g
would draw if it held e. Every coefficient is an integer over one denominator, so
CP-SAT's optimum is exact and no tolerance is involved. Routes and costs are those of
``tests/oracles/brute_force.py``, which imports nothing of the planner.
"""

import random
from dataclasses import replace
from fractions import Fraction
from math import lcm

from ortools.sat.python import cp_model

from tests.oracles.brute_force import EXPERT_BYTES, RESERVED_BYTES, Case, link_rows
from tests.oracles.brute_force import random_case as any_case

WORK = 300.0
"""CP-SAT's limit in its own units of work: a busy machine changes nothing."""


def single_case(seed: int) -> Case:
    """Draw a cluster of :func:`any_case` whose slots hold every expert once."""
    case, rng = any_case(seed), random.Random(seed)
    gpus = len(case.gpus)
    slots = rng.choice([1, 2, 3] if gpus == 3 else [1, 2])
    counts = tuple(rng.randrange(1, 300) for _ in range(slots * gpus))
    need = slots * EXPERT_BYTES + RESERVED_BYTES
    topology = dict(case.topology)
    topology["nodes"] = [
        {**node, "memory_bytes": need} if node["kind"] == "gpu" else node
        for node in case.topology["nodes"]
    ]
    return replace(
        case, topology=topology, counts=counts, slots=slots, memory=(need,) * gpus
    )


def integer_optimum(case: Case) -> Fraction:
    """Return the exact optimum of a case with as many slots as experts."""
    gpus, experts = len(case.gpus), len(case.counts)
    legs = link_rows(case)
    # A GPU sends 1/G of every expert's tokens; drawn[g] is what one of them costs.
    drawn = [
        [
            [Fraction(sum(row[s][g] for s in range(gpus)), gpus) for g in range(gpus)]
            for row in rows
        ]
        for rows in legs
    ]
    over = lcm(*(each.denominator for leg in drawn for row in leg for each in row))
    model = cp_model.CpModel()
    held = [
        [model.new_bool_var(f"x{e}_{g}") for g in range(gpus)] for e in range(experts)
    ]
    for row in held:
        model.add_exactly_one(row)
    for g in range(gpus):
        model.add(sum(row[g] for row in held) == case.slots)
    peaks = []
    for leg in drawn:
        rows = [[int(each * over) for each in row] for row in leg]
        most = sum(case.counts) * max(max(row) for row in rows)
        peak = model.new_int_var(0, most, f"t{len(peaks)}")
        peaks.append(peak)
        for row in rows:
            model.add(
                sum(
                    count * row[g] * held[e][g]
                    for e, count in enumerate(case.counts)
                    for g in range(gpus)
                )
                <= peak
            )
    model.minimize(sum(peaks))
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = WORK
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    if status != cp_model.OPTIMAL:
        raise RuntimeError(f"CP-SAT stopped with status {status}")
    return Fraction(round(solver.objective_value), over)
