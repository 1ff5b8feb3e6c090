"""Faster links: each of the links that bind most, and all links of their kinds."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

from planner.evaluator.objective import leg_peaks
from planner.explain.relax.base import RELAXATIONS, Question, Relaxation
from planner.instance import PlacementInstance
from planner.topology.graph import ClusterTopology

MOST_LINKS = 3


@RELAXATIONS.register("link")
def faster_links(question: Question) -> list[Relaxation]:
    """Links on which the objective's time is spent, then all links of their kinds.

    Both directions of a link are made faster, as a faster cable would. Only
    ``link_time`` knows speeds. Routes and loads stay as they are.
    """
    if question.instance.objective.name != "link_time":
        return []
    topology = question.instance.topology
    spent = _seconds_spent(question)
    cables = dict.fromkeys(_both_ways(topology, index) for index in spent)
    found = []
    for cable in list(cables)[:MOST_LINKS]:
        link = topology.links[cable[0]]
        name = link.name if link.members else f"{link.source} <-> {link.target}"
        found.append(_faster(question, cable, name))
    for kind in dict.fromkeys(topology.links[index].kind for index in spent):
        members = [link.index for link in topology.links if link.kind == kind]
        words = "all capacity groups" if kind == "group" else f"all {kind} links"
        found.append(_faster(question, members, words))
    return found


def _both_ways(topology: ClusterTopology, index: int) -> tuple[int, ...]:
    link = topology.links[index]
    back = topology.edge_index.get((link.target, link.source))
    return (index,) if link.members or back is None else tuple(sorted((index, back)))


def with_speed(
    instance: PlacementInstance, chosen: Collection[int], factor: Fraction
) -> PlacementInstance:
    """Return the instance with the chosen links ``factor`` times as fast."""
    topology = instance.topology
    links = tuple(
        replace(
            link,
            bytes_per_s=link.bytes_per_s * factor,
            nominal_bytes_per_s=link.nominal_bytes_per_s * factor,
        )
        if link.index in chosen
        else link
        for link in topology.links
    )
    faster = replace(topology, links=links)
    routes = replace(instance.routes, topology=faster)
    return replace(instance, topology=faster, routes=routes)


def _faster(question: Question, chosen: Collection[int], name: str) -> Relaxation:
    factor = 1 + Fraction(str(question.by))
    links = question.instance.topology.links
    names = {links[index].name for index in chosen}
    return Relaxation(
        kind="link",
        what=f"{name} {question.by:.0%} faster",
        instance=with_speed(question.instance, chosen, factor),
        plan=question.plan,
        same_loads=True,
        adapted=lambda certificate: repriced(certificate, names, factor),
        least_share=1 / factor,
    )


def repriced(
    certificate: Mapping[str, Any], faster: Collection[str], factor: Fraction
) -> Mapping[str, Any]:
    """Return ``prices`` that fit faster links: the bound divided by 1 + by · share.

    A faster link takes a share of the objective that is as much larger, so that a
    pair costs what it cost; then all shares are divided by their sum, and with them
    ``unit``, the measure of every other price.
    """
    if certificate.get("kind") != "prices":
        return certificate
    raised = {
        leg: {
            name: Fraction(share) * (factor if name in faster else 1)
            for name, share in by_name.items()
        }
        for leg, by_name in certificate["links"].items()
    }
    most = max((sum(shares.values()) for shares in raised.values()), default=0)
    over = max(Fraction(1), Fraction(most))
    links = {
        leg: {name: str(share / over) for name, share in shares.items()}
        for leg, shares in raised.items()
    }
    unit = str(Fraction(certificate["unit"]) / over)
    return {**certificate, "links": links, "unit": unit}


def _seconds_spent(question: Question) -> list[int]:
    """Links that bind, by the seconds of the layers and legs in which they do."""
    spent: dict[int, Fraction] = {}
    for evaluation in question.planning.each:
        for loads in evaluation.layers:
            for leg in leg_peaks(evaluation.instance, loads, "link_time"):
                if leg.value:
                    spent[leg.index] = spent.get(leg.index, Fraction(0)) + leg.value
    return sorted(spent, key=lambda index: (-spent[index], index))
