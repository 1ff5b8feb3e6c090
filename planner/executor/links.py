"""From counted transfers to loads on links, along the topology's routes."""

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.topology.paths import Routes


def link_numerators(
    dispatch_LGG: IntArray, combine_LGG: IntArray, routes: Routes
) -> ExactArray:
    """Return numerators over Q of the transfers on every link, [L, 2, A].

    Combine transfers are routed as they were moved, from the expert's GPU back
    (rule 21).

    Raises
    ------
    TopologyError
        A transfer was moved between GPUs without a path.
    """
    return np.stack([routes.loads(dispatch_LGG), routes.loads(combine_LGG)], axis=1)
