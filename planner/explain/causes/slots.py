"""Fewer slots than experts."""

from math import ceil

from planner.explain.causes.base import (
    CAUSES,
    OPTION,
    Change,
    Finding,
    Setup,
    more_domains,
)

DOMAIN_TRIES = 8


@CAUSES.register("slots")
def slots(setup: Setup) -> Finding | None:
    """Every expert needs a slot of its own in every layer, or a GPU altogether."""
    experts, held = setup.model.experts, setup.slot_count
    says = (
        f"too few slots: {experts} experts in {held} slots per layer "
        f"({setup.layout.ep} GPUs of {setup.slots_per_gpu}), {experts - held} short"
    )
    if setup.single:
        experts, held = experts * len(setup.model.moe_layers), setup.layout.ep
        says = (
            f"too few GPUs: {setup.options.policy} needs one for each of the {experts} "
            f"experts of all layers and has {held}, {experts - held} short"
        )
    if held >= experts:
        return None
    policy = setup.options.policy
    per_domain = len(setup.topology.domains[-1])
    gpus = ceil(experts / setup.slots_per_gpu)
    missing = ceil((gpus - setup.topology.gpu_count) / per_domain)
    free: tuple[Change, ...] = ()
    if policy != "uniform":
        what = f"--policy uniform instead of {policy}"
        free = (Change(what=what, cost=(OPTION, 0.0), options={"policy": "uniform"}),)
    return Finding(
        says=says,
        numbers={
            "experts": experts,
            "slots": held,
            "short_slots": experts - held,
            "gpus": setup.layout.ep,
        },
        ladders=tuple(filter(None, (free, more_domains(setup, missing, DOMAIN_TRIES)))),
    )
