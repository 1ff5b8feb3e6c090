"""(e) Unequal or shared links: traffic away from those that are slow or busy."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from planner.arrays import BoolArray, FloatArray
from planner.explain.effects.base import EFFECTS, Effect, EffectRule, Room, Switch
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.topology.graph import Link

NAME = "unequal or shared links"
NEVER_BINDS = 10**6
"""How much faster a shared link becomes for a planner that does not see it."""


def _seen(instance: PlacementInstance) -> Effect:
    """Under uniform all-to-all, compare links many GPUs share with ports of one."""
    seconds_A, is_port_A = _all_to_all_seconds(instance)
    links = instance.topology.links
    busiest_port = float(seconds_A[is_port_A].max(initial=0.0))
    shared = np.where(is_port_A, 0.0, seconds_A)
    worst = int(np.argmax(shared))
    if shared[worst] > busiest_port * (1 + 1e-9):
        because = f"{links[worst].name} is shared and busier than any GPU's own port"
        return Effect(name=NAME, applies=True, because=because)
    for link_class in {link.link_class for link in links}:
        inside = [link.index for link in links if link.link_class == link_class]
        ports = seconds_A[[index for index in inside if is_port_A[index]]]
        if ports.size and ports.max() > ports.min() * (1 + 1e-9):
            because = f"ports of class {link_class} are unequal"
            return Effect(name=NAME, applies=True, because=because)
    because = "every GPU has equal ports and no shared link is busier than a port"
    return Effect(name=NAME, applies=False, because=because)


def _room(instance: PlacementInstance) -> Room | None:
    """Compare the busiest link with the busiest port, everyone sending to everyone."""
    seconds_A, is_port_A = _all_to_all_seconds(instance)
    port = float(seconds_A[is_port_A].max(initial=0.0))
    worst = int(np.argmax(seconds_A))
    if not port:
        return None
    factor = float(seconds_A[worst]) / port
    slowest = _slowest_over_mean(instance, seconds_A, is_port_A)
    return Room(
        by_chance=1.0,
        at_most=max(factor, slowest),
        says=f"everyone to everyone, {instance.topology.links[worst].name} is "
        f"{factor:.2f} times as busy as the busiest port of one GPU; the busiest port "
        f"of a class is {slowest:.2f} times its mean",
    )


def _blind(instance: PlacementInstance) -> PlacementInstance:
    """Plan as if ports of a class were equal and no shared link could bind."""
    _, is_port_A = _all_to_all_seconds(instance)
    links = instance.topology.links
    mean = {
        name: _mean([link for link in links if link.link_class == name])
        for name in {link.link_class for link in links}
    }
    equal = tuple(
        replace(
            link,
            bytes_per_s=mean[link.link_class]
            if is_port_A[link.index]
            else link.bytes_per_s * NEVER_BINDS,
        )
        for link in links
    )
    topology = replace(instance.topology, links=equal)
    routes = replace(instance.routes, topology=topology)
    return replace(instance, topology=topology, routes=routes)


def _mean(links: list[Link]) -> Fraction:
    return sum((link.bytes_per_s for link in links), Fraction(0)) / len(links)


def _slowest_over_mean(
    instance: PlacementInstance, seconds_A: FloatArray, is_port_A: BoolArray
) -> float:
    found = [1.0]
    links = instance.topology.links
    for link_class in {link.link_class for link in links}:
        inside = [link.index for link in links if link.link_class == link_class]
        ports = seconds_A[[index for index in inside if is_port_A[index]]]
        if ports.size and ports.mean():
            found.append(float(ports.max() / ports.mean()))
    return max(found)


def _all_to_all_seconds(
    instance: PlacementInstance,
) -> tuple[FloatArray, BoolArray]:
    """Return link seconds of one byte per GPU pair, and which links serve one GPU."""
    load_A, is_port_A = instance.routes.all_to_all()
    return load_A * instance.topology.seconds_per_byte.near_A, is_port_A


def _switched(instance: PlacementInstance, options: SolveOptions) -> Switch | None:
    """Links are what they are."""
    return None


EFFECTS.register("links")(
    EffectRule(letter="e", seen=_seen, room=_room, blind=_blind, switched=_switched)
)
