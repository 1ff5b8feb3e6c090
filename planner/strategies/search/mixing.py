"""What a placement is guided by where the tokens to come are others than those seen.

Which token leaves from which GPU is chance: the busiest link of the tokens seen is
partly luck that unseen sequences will not repeat, and a search that looks at every
GPU on its own learns the luck. The *mixed* network lets the tokens of a domain leave
from its GPUs in proportion to how many each has, whatever they chose.
"""

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.network import Classes, Network, network_of
from planner.workload.parts import TokenPart


def mixed_network(instance: PlacementInstance) -> Network | None:
    """Return the network with the sources of a domain mixed; None where it is no help.

    Linear traffic has bounds to be compared with, and pairs do not have sources.
    """
    network = network_of(instance, _classes(instance))
    if network.linear or network.counts_pairs:
        return None
    return network


def _classes(instance: PlacementInstance) -> Classes:
    """Take together what shares EP set and domain, each by its number of tokens.

    Where ``nearest`` deals far copies to GPUs in turn, those that get the first of two
    stay apart from those that get the second.
    """
    layout, part = instance.layout, instance.planning
    gpus = layout.gpu_count
    key_G = layout.set_G * gpus + layout.domain_G
    if instance.selection == "nearest" and instance.slot_count > instance.model.experts:
        key_G = 2 * key_G + np.arange(gpus) % 2
    class_S: IntArray = np.unique(key_G, return_inverse=True)[1].astype(np.int64)
    tokens_S: FloatArray = np.ones(gpus)
    if isinstance(part, TokenPart):
        tokens_S = np.bincount(part.source_T, minlength=gpus).astype(np.float64)
    tokens_C = np.bincount(class_S, weights=tokens_S)
    # A class without tokens loads nothing, whatever its shares.
    share_S = tokens_S / np.maximum(tokens_C, 1.0)[class_S]
    return Classes(class_S=class_S, share_S=share_S)


def by_cells(network: Network) -> Network | None:
    """Return the network without what GPUs load; None where no cell loads anything."""
    start = network.first_K[network.ep * network.classes]
    if network.cell_CR.min() < 0 or not network.alike or start == network.place_Y.size:
        return None
    place_Y = network.place_Y[start:]
    used = np.unique(place_Y)
    return network._replace(
        cells_only=True,
        first_K=np.maximum(network.first_K - start, 0),
        place_Y=np.searchsorted(used, place_Y),
        share_Y=network.share_Y[start:],
        cost_X=network.cost_X[used],
        leg_start=np.searchsorted(used, network.leg_start),
    )


def gpu_places(network: Network) -> IntArray:
    """Return the places that GPUs load."""
    start = network.first_K[network.ep * network.classes]
    places: IntArray = np.unique(network.place_Y[:start])
    return places
