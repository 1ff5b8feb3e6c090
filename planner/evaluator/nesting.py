"""Routing groups that stay in one domain each (``--routing-groups nest``).

Groups are those of rule 30: the model's, or as many as there are domains if it has
none; each is a run of consecutive experts of equal length.
"""

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance


def group_count(routing_groups: int, domain_G: IntArray) -> int:
    """Return how many groups nest in the domains of an EP set."""
    return routing_groups if routing_groups > 1 else np.unique(domain_G).size


def group_members(experts: int, groups: int) -> IntArray:
    """Return the experts of every group, [R, E/R]."""
    return np.arange(experts).reshape(groups, -1)


def domain_members(instance: PlacementInstance) -> list[IntArray]:
    """Return the EP ranks of every domain of the first EP set."""
    domain_G = instance.layout.domain_G[: instance.layout.ep]
    return [np.flatnonzero(domain_G == domain) for domain in np.unique(domain_G)]


def keeps_groups(instance: PlacementInstance, slots_GJ: IdArray) -> bool:
    """Tell whether every group has all its copies in one domain, if that is asked."""
    if not instance.nested_groups:
        return True
    size = instance.model.experts // instance.nested_groups
    held = [
        np.unique(slots_GJ[ranks][slots_GJ[ranks] >= 0] // size)
        for ranks in domain_members(instance)
    ]
    return bool(np.bincount(np.concatenate(held)).max() <= 1)
