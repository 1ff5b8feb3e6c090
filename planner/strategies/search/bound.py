"""The lower bound of deduplicated traffic that goes with what the search finds."""

from planner import clock
from planner.engine import ENGINES
from planner.engine.base import Share
from planner.formulation.gram.certificate import certificate_of
from planner.formulation.gram.problem import nets_of, visits_of, why_not
from planner.formulation.gram.solve import solve_nets
from planner.instance import PlacementInstance
from planner.strategies.base import Bound, LayerBound, Limits, whole_bound

SHARE = 0.2
"""Largest share of the time that the bound of all layers gets."""
MOST_STEPS = 1000
"""Steps in one layer; where they fit the time, the bound depends on it no more."""


def dedup_bound(instance: PlacementInstance, limits: Limits) -> Bound | None:
    """Return a bound for every layer, None where none is known (one copy each only)."""
    if why_not(instance) is not None:
        return None
    deadline = clock.now() + limits.seconds * SHARE
    visits = visits_of(instance)

    def bounded(layer: int, seconds: float) -> LayerBound:
        nets = nets_of(instance, layer, visits)
        found = solve_nets(nets, seconds=seconds, steps=MOST_STEPS)
        rounded = certificate_of(nets, found)
        value, certificate = rounded or (0.0, {"kind": "nothing_moves"})
        return LayerBound(
            value=value,
            method="gram",
            of=f"{instance.traffic}/{instance.selection}",
            certificate=certificate,
        )

    share = Share(workers=limits.threads, left=lambda: max(0.0, deadline - clock.now()))
    run = ENGINES.get(limits.engine)
    layers = run(bounded, range(instance.layer_count), share)
    return whole_bound(layers, instance.objective.layers)
