"""Hosts whose GPUs are wired to each other without a switch (MI300X)."""

from itertools import combinations

from planner.topology.generators.base import (
    GENERATORS,
    Generator,
    Json,
    Parameters,
    WrongParameter,
    duplex,
    gpus_of,
)
from planner.topology.models import Positive

MAX_MESH = 256


class FullMesh(Parameters):
    """Parameters of ``full_mesh``: ``pair_gbs`` joins every two GPUs."""

    pair_gbs: Positive


def make(parameters: FullMesh) -> Json:
    """Return the GPUs of one host and an xGMI edge between every two."""
    if not 2 <= parameters.gpus_per_node <= MAX_MESH:
        raise WrongParameter(
            "gpus_per_node", f"must be at least 2 and at most {MAX_MESH}", "change it"
        )
    gpus = gpus_of("n0", parameters)
    edges = [
        duplex(one["id"], other["id"], "xgmi", parameters.pair_gbs)
        for one, other in combinations(gpus, 2)
    ]
    return {"nodes": gpus, "edges": edges}


GENERATORS.register("full_mesh")(Generator(parameters=FullMesh, make=make))
