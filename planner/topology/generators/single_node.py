"""One host whose GPUs share an NVSwitch; no scale-out fabric."""

from planner.topology.generators.base import (
    GENERATORS,
    Generator,
    Json,
    Parameters,
    ScaleUp,
    switched_host,
)


class SingleNode(Parameters):
    """Parameters of ``single_node``."""

    nvlink: ScaleUp


def make(parameters: SingleNode) -> Json:
    """Return GPUs, NVSwitch and NVLink edges of one host."""
    return switched_host("n0", parameters, parameters.nvlink)


GENERATORS.register("single_node")(Generator(parameters=SingleNode, make=make))
