"""The lower bound of deduplicated traffic that goes with what the search finds."""

import time
from concurrent.futures import ThreadPoolExecutor

from planner.formulation.gram.certificate import certificate_of
from planner.formulation.gram.problem import nets_of, visits_of, why_not
from planner.formulation.gram.solve import solve_nets
from planner.instance import PlacementInstance
from planner.strategies.base import Bound, LayerBound, whole_bound

SHARE = 0.2
"""Largest share of the time that the bound of all layers gets."""
MOST_STEPS = 1000
"""Steps in one layer; where they fit the time, the bound depends on it no more."""


def dedup_bound(
    instance: PlacementInstance, seconds: float, threads: int
) -> Bound | None:
    """Return a bound for every layer, None where none is known (one copy each only)."""
    if why_not(instance) is not None:
        return None
    deadline = time.perf_counter() + seconds * SHARE
    visits = visits_of(instance)
    workers = max(1, min(threads, instance.layer_count))

    def bounded(layer: int) -> LayerBound:
        rounds = -(-(instance.layer_count - layer) // workers)
        left = max(0.0, deadline - time.perf_counter())
        nets = nets_of(instance, layer, visits)
        found = solve_nets(nets, seconds=left / rounds, steps=MOST_STEPS)
        rounded = certificate_of(nets, found)
        value, certificate = rounded or (0.0, {"kind": "nothing_moves"})
        return LayerBound(
            value=value,
            method="gram",
            of=f"{instance.traffic}/{instance.selection}",
            certificate=certificate,
        )

    with ThreadPoolExecutor(max_workers=workers) as pool:
        layers = list(pool.map(bounded, range(instance.layer_count)))
    return whole_bound(layers, instance.objective.layers)
