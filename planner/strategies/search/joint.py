"""Several workloads as one network: each moves through a cluster of its own.

The placement is one, but every workload has its own tokens and its own busiest links.
EP sets hold the same placement on other GPUs; so W workloads are one layer with W
times as many EP sets, whose links are kept apart and weighed by rule 25.
"""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.evaluator.joint import planning_tokens
from planner.instance import PlacementInstance
from planner.strategies.search.choices import all_alike
from planner.strategies.search.network import Network, network_of
from planner.strategies.search.serving import homes_of, sources_decide


def joint_network(instance: PlacementInstance) -> Network:
    """Return the network of all workloads side by side; of one, its own.

    The objective is that of rule 25 where it is the mean. Where it is the worst, legs
    are taken together before they are added, which is an upper bound of it and equal
    to it where one leg decides (symmetric clusters).

    Raises
    ------
    ValueError
        If the cluster is too large to write all its routes out.
    """
    homes = homes_of(instance)
    networks = [network_of(view) for view in instance.views]
    if len(networks) == 1:
        return networks[0]
    cell_CR = np.concatenate([each.cell_CR for each in networks])
    columns = max(each.columns for each in networks)
    first, domains = networks[0], len(instance.topology.domains)
    classes = [each.classes for each in networks]
    joint = first._replace(
        linear=first.linear and all_alike(instance),
        columns=columns,
        domain_G=_apart(
            [each.domain_G for each in networks], [domains] * len(networks)
        ),
        by_source=sources_decide(instance, homes),
        homes=homes._replace(class_G=np.tile(homes.class_G, len(networks))),
        cell_CR=cell_CR,
        alike=bool((cell_CR == cell_CR[0]).all()),
        classes=sum(classes),
    )
    return _with_loads(joint, networks, _legs(instance, networks))


def _apart(numbers: list[IntArray], counts: list[int]) -> IntArray:
    """Join arrays of numbers below ``counts`` so that none is in two of them."""
    first = np.cumsum([0, *counts])
    return np.concatenate(
        [each + start for each, start in zip(numbers, first[:-1], strict=True)]
    )


def _weights(instance: PlacementInstance) -> list[float]:
    """Return what a workload's value is multiplied by before they become one."""
    worst = instance.objective.combine == "worst"
    return [
        (1.0 if worst else float(load.weight)) / max(float(tokens), 1.0)
        for load, tokens in zip(
            instance.workloads, planning_tokens(instance), strict=True
        )
    ]


def _legs(
    instance: PlacementInstance, networks: list[Network]
) -> tuple[list[tuple[int, IntArray]], FloatArray, IntArray]:
    """Return (workload, places) of each run of places, their costs and legs' starts."""
    worst = instance.objective.combine == "worst"
    weights, legs = _weights(instance), []
    for number, network in enumerate(networks):
        for leg in range(network.leg_start.size - 1):
            places = np.arange(network.leg_start[leg], network.leg_start[leg + 1])
            legs.append((leg if worst else number * 2 + leg, number, places))
    legs.sort(key=lambda each: each[:2])
    costs = [
        networks[number].cost_X[places] * weights[number] for _, number, places in legs
    ]
    sizes = np.cumsum([0, *(places.size for *_, places in legs)])
    names = [name for name, *_ in legs]
    starts = [sizes[names.index(name)] for name in sorted(set(names))]
    runs = [(number, places) for _, number, places in legs]
    return runs, np.concatenate(costs), np.asarray([*starts, sizes[-1]])


def _with_loads(
    joint: Network,
    networks: list[Network],
    legs: tuple[list[tuple[int, IntArray]], FloatArray, IntArray],
) -> Network:
    """Number keys and places anew, so that workloads do not meet."""
    runs, cost_X, leg_start = legs
    moved = [np.zeros(each.cost_X.size, dtype=np.int64) for each in networks]
    at = 0
    for number, places in runs:
        moved[number][places] = at + np.arange(places.size)
        at += places.size
    keys, classes = [], 0
    for network in networks:
        key = np.repeat(np.arange(network.first_K.size - 1), np.diff(network.first_K))
        column, group = np.divmod(key, network.classes)
        keys.append(column * joint.classes + classes + group)
        classes += network.classes
    key_Y = np.concatenate(keys)
    order = np.argsort(key_Y, kind="stable")
    place_Y = np.concatenate(
        [new[each.place_Y] for new, each in zip(moved, networks, strict=True)]
    )
    return joint._replace(
        first_K=np.searchsorted(
            key_Y[order], np.arange(joint.columns * joint.classes + 1)
        ),
        place_Y=place_Y[order],
        share_Y=np.concatenate([each.share_Y for each in networks])[order],
        cost_X=cost_X,
        leg_start=leg_start.astype(np.int64),
    )
