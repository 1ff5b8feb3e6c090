"""What a placement is guided by where the tokens to come are others than those seen.

Which token leaves from which GPU is chance: the busiest link of the tokens seen is
partly luck that unseen sequences will not repeat, and a search that looks at every
GPU on its own learns the luck. Where whole sequences stay together they are drawn anew
(``resampling``); where their tokens are dealt out, sources are mixed (``mixing``).
"""

from typing import NamedTuple

import numpy as np

from planner.arrays import IntArray
from planner.instance import PlacementInstance
from planner.strategies.search.choices import Sample
from planner.strategies.search.mixing import mixed
from planner.strategies.search.network import Network
from planner.strategies.search.resampling import resampled, stays_together
from planner.traffic.base import TRAFFIC
from planner.workload.parts import TokenPart


class Guide(NamedTuple):
    """A network to follow and the tokens to look at with it.

    ``last`` says that it is followed to the end: it knows which GPU has more tokens by
    chance only as far as any sequences would.
    """

    network: Network
    sample: Sample
    last: bool


def guide_of(instance: PlacementInstance, seconds: float = np.inf) -> Guide | None:
    """Return what to follow instead of the tokens as seen; None where that is no help.

    Linear traffic has bounds to be compared with, and pairs do not have sources.
    ``seconds`` is the limit's share of a layer.
    """
    part = instance.planning
    if not isinstance(part, TokenPart) or instance.objective.name == "gpu_tokens":
        return None
    if TRAFFIC.get(instance.traffic).linear:
        return None
    if stays_together(part):
        return Guide(*resampled(instance, part, seconds), last=True)
    return Guide(*mixed(instance, part), last=False)


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
