"""The strategy ``single``: every GPU holds one expert of one layer.

Each expert has one copy, so each layer costs at least what its worst expert costs in
the domain that suits it best. The placement gives every expert such a domain; where
all find room the plan is optimal on the GPUs' own ports, and the verifier proves it
again (certificate ``one_copy``).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from planner import clock
from planner.errors import UsageError
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.base import (
    STRATEGIES,
    Bound,
    Event,
    LayerBound,
    Limits,
    Progress,
    SolveResult,
    whole_bound,
)
from planner.strategies.single.assign import Board, Wish, gpus_of, wishes
from planner.strategies.single.costs import Ports, least_costs
from planner.workload.parts import CountsPart

LAYER_SECONDS = 0.02
"""Rate of counted work: placing a layer."""
CERTIFICATE: dict[str, Any] = {"kind": "one_copy"}


@STRATEGIES.register("single")
def solve_single(
    instance: PlacementInstance,
    limits: Limits,
    starts: Sequence[PlacementPlan] = (),
    progress: Progress | None = None,
) -> SolveResult:
    """Place every expert where its layer's bound allows it.

    The result depends on nothing but the instance. Of several workloads the first
    decides, and nothing is proven of them together.

    Raises
    ------
    UsageError
        For another policy, or a counts table.
    """
    _check(instance)
    begun = clock.now()
    view = instance.views[0]
    values, plan, missed = _placed(view)
    bound = _bound(instance, values)
    notes = (f"{missed} experts found no room where their layer's bound allows them",)
    seconds = clock.now() - begun
    event = Event(seconds=seconds, objective=None, bound=bound.value if bound else None)
    if progress is not None:
        progress(event)
    return SolveResult(
        plan=plan,
        reason="complete",
        bound=bound,
        history=(event,),
        layer_strategies=("single",) * instance.layer_count,
        notes=notes if missed else (),
    )


def _check(instance: PlacementInstance) -> None:
    if not instance.single:
        raise UsageError(
            "strategy single places one expert per GPU: give --policy "
            "one_expert_per_gpu_total, or another --strategy"
        )
    if any(isinstance(view.planning, CountsPart) for view in instance.views):
        raise UsageError(
            "strategy single places by where tokens live, and a counts table does not "
            "say: give a trace of tokens, or --strategy flow"
        )


def _placed(instance: PlacementInstance) -> tuple[list[float], PlacementPlan, int]:
    """Return the layers' bounds, the plan, and how many experts missed their wish."""
    layers, experts = instance.layer_count, instance.model.experts
    domain_G = instance.layout.domain_G
    ports = Ports.of(instance)
    board = Board(layers, experts, np.bincount(domain_G))
    clock.spend(layers * LAYER_SECONDS)
    values: list[float] = []
    critical: list[Wish] = []
    for layer in range(layers):
        value, found = wishes(layer, least_costs(instance, ports, layer))
        values.append(value)
        critical.extend(found)
    critical.sort(key=lambda wish: (wish.domains.size, -float(wish.cost.max())))
    missed = sum(not board.grant(wish) for wish in critical)
    for layer in range(layers):
        board.fill(layer, least_costs(instance, ports, layer))
    board.mend()
    gpu_LE = gpus_of(board.domain_LE, domain_G)
    slots_LGJ = np.full((layers, domain_G.size, 1), -1, dtype=np.int16)
    slots_LGJ[np.arange(layers)[:, None], gpu_LE, 0] = np.arange(experts)
    plan = PlacementPlan(layer_numbers=instance.model.moe_layers, slots_LGJ=slots_LGJ)
    return values, plan, missed


def _bound(instance: PlacementInstance, values: Sequence[float]) -> Bound | None:
    if len(instance.views) > 1:
        return None
    layers = [
        LayerBound(
            value=value,
            method="one-copy",
            of=f"{instance.traffic}/{instance.selection}",
            certificate=CERTIFICATE,
        )
        for value in values
    ]
    return whole_bound(layers, instance.objective.layers)
