"""What hangs together: GPUs that reach each other, scale-up domains (rule 2)."""

from collections.abc import Sequence

import networkx as nx
import numpy as np

from planner.arrays import IntArray
from planner.topology.graph import SCALE_UP_KINDS, Gpu, Link
from planner.topology.models import Node


def first_alone(graph: nx.DiGraph, gpus: Sequence[Gpu]) -> str | None:
    """Return the first GPU from which no path leads to another GPU.

    GPUs never forward: what lies between is made of other nodes.
    """
    names = {gpu.id for gpu in gpus}
    middle = graph.subgraph(node for node in graph if node not in names)
    group: dict[str, int] = {}
    for number, members in enumerate(nx.weakly_connected_components(middle)):
        group.update(dict.fromkeys(members, number))
    touching: dict[int, set[str]] = {}
    for gpu in names:
        for other in (*graph.successors(gpu), *graph.predecessors(gpu)):
            if other in group:
                touching.setdefault(group[other], set()).add(gpu)
    for gpu_record in gpus:
        nexts = list(graph.successors(gpu_record.id))
        direct = any(other in names for other in nexts)
        if not direct and not any(
            len(touching[group[other]]) > 1 for other in nexts if other in group
        ):
            return gpu_record.id
    return None


def domains(
    nodes: Sequence[Node], gpus: Sequence[Gpu], links: Sequence[Link]
) -> IntArray:
    """Number the scale-up domains by first appearance (rule 2)."""
    named = {node.id: node.nvlink_domain for node in nodes}
    scale_up = nx.Graph()
    scale_up.add_nodes_from(gpu.id for gpu in gpus)
    scale_up.add_edges_from(
        (link.source, link.target)
        for link in links
        if link.kind in SCALE_UP_KINDS and not link.members
    )
    component: dict[str, int] = {}
    for number, members in enumerate(nx.connected_components(scale_up)):
        component.update(dict.fromkeys(members, number))
    numbers: dict[str | int, int] = {}
    found = [
        numbers.setdefault(named[gpu.id] or component[gpu.id], len(numbers))
        for gpu in gpus
    ]
    return np.asarray(found, dtype=np.int64)
