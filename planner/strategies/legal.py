"""Plans that keep the constraints: as close as can be to plans that do not.

Strategies that know no constraints make plans and bounds of the problem without them.
The bounds hold, since constraints only take plans away; the plans are carried over
here. ``docs/constraints.md`` says which strategy does what.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.arrays import BoolArray, FloatArray, IdArray
from planner.constraints import LayerRules
from planner.errors import Cause, InfeasibleError, LimitError
from planner.evaluator.evaluation import layer_split
from planner.formulation.legal import legal_model
from planner.formulation.mathopt import solve_integer, solve_linear
from planner.instance import PlacementInstance
from planner.plan import PlacementPlan
from planner.strategies.judging import judged_layer

SECONDS = 60.0
"""Time to make one layer legal; usually it takes a fraction of a second."""
INTEGRAL = 1e-6


def legalized(instance: PlacementInstance, plan: PlacementPlan) -> PlacementPlan:
    """Return the plan with every layer that breaks a rule replaced by the closest.

    ``plan`` itself if it breaks none. Splits of replaced layers are dropped.

    Raises
    ------
    InfeasibleError
        If the rules of a layer allow no slots at all.
    LimitError
        If none were found in time.
    """
    if instance.constraints is None:
        return plan
    slots_LGJ, split = plan.slots_LGJ.copy(), dict(plan.split)
    for layer, rules in enumerate(instance.constraints.layers):
        if rules.keeps(slots_LGJ[layer]):
            continue
        slots_LGJ[layer] = closest(instance, layer, slots_LGJ[layer])
        split = {key: weights for key, weights in split.items() if key[0] != layer}
    return replace(plan, slots_LGJ=slots_LGJ, split=split)


def legal_starts(
    instance: PlacementInstance, plans: Sequence[PlacementPlan]
) -> list[PlacementPlan]:
    """Return plans that keep the rules: those that do, and the best layers made to.

    Without constraints the plans as they are.
    """
    constraints = instance.constraints
    if constraints is None:
        return list(plans)
    best = [
        min(plans, key=lambda plan: _value(instance, layer, plan))
        for layer in range(instance.layer_count)
    ]
    joined = PlacementPlan(
        layer_numbers=instance.model.moe_layers,
        slots_LGJ=np.stack([each.slots_LGJ[at] for at, each in enumerate(best)]),
        split={
            (at, expert): weights
            for at, each in enumerate(best)
            for expert, weights in layer_split(each, at).items()
        },
    )
    legal = [plan for plan in plans if keeps(instance, plan)]
    return [*legal, legalized(instance, joined)]


def keeps(instance: PlacementInstance, plan: PlacementPlan) -> bool:
    """Whether every layer of a plan keeps the rules, and all together the moves."""
    constraints = instance.constraints
    if constraints is None:
        return True
    layers = zip(constraints.layers, plan.slots_LGJ, strict=True)
    return all(rules.keeps(slots_GJ) for rules, slots_GJ in layers) and (
        constraints.max_moves is None
        or sum(moves_by_layer(instance, plan)) <= constraints.max_moves
    )


def _value(
    instance: PlacementInstance, layer: int, plan: PlacementPlan
) -> tuple[object, object]:
    slots_GJ, split = plan.slots_LGJ[layer], layer_split(plan, layer)
    value, excess = judged_layer(instance, layer, slots_GJ, split)
    return excess, value


def closest(instance: PlacementInstance, layer: int, slots_GJ: IdArray) -> IdArray:
    """Return legal slots of a layer that keep as many experts where they are.

    Raises
    ------
    InfeasibleError
        If there are none.
    LimitError
        If none were found in time.
    """
    assert instance.constraints is not None
    rules = instance.constraints.layers[layer]
    cost_RE = np.zeros(rules.allowed_RE.shape)
    rank, slot = np.nonzero(slots_GJ >= 0)
    cost_RE[rank, slots_GJ[rank, slot]] = -1.0
    few = replace(rules, allowed_RE=rules.allowed_RE & _nearby(rules, slots_GJ))
    held_RE = cheapest(few, instance.slots_per_gpu, cost_RE)
    if held_RE is None:
        held_RE = cheapest(rules, instance.slots_per_gpu, cost_RE)
    if held_RE is None:
        raise InfeasibleError(
            f"no slots of layer {instance.model.moe_layers[layer]} keep its rules"
        )
    return _in_place(slots_GJ, held_RE)


def _nearby(rules: LayerRules, slots_GJ: IdArray) -> BoolArray:
    """Return places [R, E] among which a repair is looked for first.

    Experts that break a rule may go anywhere, and any expert to where they are or
    must be; others stay.
    """
    if rules.moves(slots_GJ) > rules.most_moves:
        return np.ones_like(rules.allowed_RE)
    breaking_E = rules.breaking(slots_GJ)
    near_RE = np.zeros_like(rules.allowed_RE)
    rank, slot = np.nonzero(slots_GJ >= 0)
    near_RE[rank, slots_GJ[rank, slot]] = True
    open_R = near_RE[:, breaking_E].any(axis=1)
    open_R |= rules.pin_PR[breaking_E[rules.pin_P]].any(axis=0)
    near_RE[open_R] = True
    near_RE[:, breaking_E] = True
    return near_RE


def cheapest(rules: LayerRules, slots: int, cost_RE: FloatArray) -> FloatArray | None:
    """Return who holds what [R, E] in the cheapest legal layer; None if there is none.

    Raises
    ------
    LimitError
        If it was not decided in time.
    """
    model = legal_model(rules, slots, cost_RE)
    found = solve_linear(model.relaxed(), SECONDS, simplex=True)
    if found.reason == "infeasible":
        return None
    if found.reason != "optimal" or not _integral(found.solutions[0]):
        found = solve_integer(model, SECONDS)
    if found.reason == "infeasible":
        return None
    if not found.solutions:
        raise LimitError(
            f"no slots that keep the constraints were found in {SECONDS:.0f} s; give "
            "fewer constraints"
        )
    held_RE: FloatArray = np.rint(found.solutions[0]).reshape(cost_RE.shape)
    return held_RE


def _integral(values: FloatArray) -> bool:
    return bool(np.abs(values - np.rint(values)).max() < INTEGRAL)


def _in_place(slots_GJ: IdArray, held_RE: FloatArray) -> IdArray:
    """Return slots that hold these experts, who stays in his slot."""
    placed_GJ = np.full_like(slots_GJ, -1)
    for rank, held_E in enumerate(held_RE > 0.5):
        coming = held_E.copy()
        for slot, expert in enumerate(slots_GJ[rank].tolist()):
            if expert >= 0 and coming[expert]:
                placed_GJ[rank, slot] = expert
                coming[expert] = False
        placed_GJ[rank, placed_GJ[rank] < 0] = np.flatnonzero(coming)
    return placed_GJ


def moves_by_layer(instance: PlacementInstance, plan: PlacementPlan) -> list[int]:
    """Return how many experts a plan moves from the previous one, layer by layer."""
    assert instance.constraints is not None
    layers = zip(instance.constraints.layers, plan.slots_LGJ, strict=True)
    return [rules.moves(slots_GJ) for rules, slots_GJ in layers]


def first_plan(instance: PlacementInstance) -> PlacementPlan:
    """Return a legal plan with the fewest moves from the previous one.

    Raises
    ------
    InfeasibleError
        With the rules that contradict each other, none of which can be spared.
    """
    constraints = instance.constraints
    assert constraints is not None
    slots_LGJ, made = [], {}
    empty_GJ = np.full((instance.layout.ep, instance.slots_per_gpu), -1, np.int16)
    for layer, rules in enumerate(constraints.layers):
        chosen = [
            at for at, rule in enumerate(constraints.rules) if layer in rule.layers
        ]
        key = (tuple(chosen), layer if constraints.new_LRE is not None else -1)
        if key not in made:
            cost_RE = rules.new_RE.astype(np.float64)
            free = replace(rules, most_moves=int(rules.new_RE.sum(dtype=np.int64)))
            held_RE = cheapest(free, instance.slots_per_gpu, cost_RE)
            if held_RE is None:
                raise _conflict(instance, layer, chosen)
            before_GJ = empty_GJ
            if constraints.before_LGJ is not None:
                before_GJ = _resized(constraints.before_LGJ[layer], empty_GJ.shape[1])
            made[key] = _in_place(before_GJ, held_RE)
        slots_LGJ.append(made[key])
    return PlacementPlan(
        layer_numbers=instance.model.moe_layers, slots_LGJ=np.stack(slots_LGJ)
    )


def _resized(slots_GJ: IdArray, width: int) -> IdArray:
    """Return the first slots of every rank, -1 where it had fewer."""
    more = max(0, width - slots_GJ.shape[1])
    padded = np.pad(slots_GJ, ((0, 0), (0, more)), constant_values=-1)
    return padded[:, :width]


def _conflict(
    instance: PlacementInstance, layer: int, chosen: Sequence[int]
) -> InfeasibleError:
    """Return the rules of a layer that contradict each other, by their entries.

    One rule after the other is left out; it stays out where the rest still does.
    """
    constraints = instance.constraints
    assert constraints is not None
    kept = [constraints.rules[at] for at in chosen]
    free = np.zeros(constraints.shape[1:])
    for rule in list(kept):
        rest = [other for other in kept if other is not rule]
        rules = replace(constraints.layer(layer, rest), new_RE=free.astype(np.int16))
        if cheapest(rules, instance.slots_per_gpu, free) is None:
            kept = rest
    says = "; ".join(rule.says for rule in kept)
    number = instance.model.moe_layers[layer]
    ranks, slots = instance.layout.ep, instance.slots_per_gpu
    text = (
        f"no plan keeps these constraints together in layer {number} ({ranks} GPUs of "
        f"{slots} slots, {instance.model.experts} experts): {says}; leave one out, or "
        "give more slots (--redundant)"
    )
    cause = Cause(
        name="constraints",
        says=text,
        numbers={
            "layer": number,
            "slots": instance.slot_count,
            "entries": [rule.says.partition(":")[0] for rule in kept],
        },
    )
    return InfeasibleError(text, (cause,))
