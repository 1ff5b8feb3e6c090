"""Best placements on one level of ports, by enumeration; imports no planner code.

The value of a placement is a linear program over every flow (expert, source, server),
own service included: nothing is assumed about who serves whom.
"""

from itertools import combinations, product

import numpy as np
from scipy.optimize import linprog


def placements(experts, slots):
    """Yield every way to fill the slots with distinct experts that covers all."""
    ways = [list(combinations(range(experts), count)) for count in slots]
    for chosen in product(*ways):
        if len({expert for held in chosen for expert in held}) == experts:
            placed = np.zeros((experts, len(slots)), dtype=bool)
            for domain, held in enumerate(chosen):
                placed[list(held), domain] = True
            yield placed


def value_of(demand, placed, up, down):
    """Return the least time of the busiest port over all flows."""
    experts, domains = demand.shape
    flows = [
        (e, s, n)
        for e in range(experts)
        for s in range(domains)
        for n in range(domains)
        if placed[e, n]
    ]
    count = len(flows)
    equal = np.zeros((experts * domains, count + 1))
    ports = np.zeros((2 * domains, count + 1))
    ports[:, -1] = -1.0
    for column, (e, s, n) in enumerate(flows):
        equal[e * domains + s, column] = 1.0
        if s != n:
            ports[s, column] += 1.0 / up[s]
            ports[domains + n, column] += 1.0 / down[n]
    cost = np.zeros(count + 1)
    cost[-1] = 1.0
    found = linprog(
        cost,
        A_ub=ports,
        b_ub=np.zeros(2 * domains),
        A_eq=equal,
        b_eq=demand.ravel(),
        method="highs",
    )
    assert found.status == 0, found.message
    return float(found.fun)


def optimum(demand, slots, up, down):
    """Return the value of the best placement."""
    return min(
        value_of(demand, placed, up, down)
        for placed in placements(demand.shape[0], slots)
    )
