"""Describe a cluster in a few lines of Python and see what its slow host costs.

Two hosts of two GPUs; the second host has network cards of half the speed.
Run: ``python examples/03_own_cluster.py [SECONDS]``
"""

import sys
from typing import Any

import planner
from planner.options import SolveOptions


def cluster(nic_gbs: list[float]) -> dict[str, Any]:
    """Return a ``moe-topology/1`` object; one host per entry of ``nic_gbs``."""
    nodes: list[dict[str, Any]] = [{"id": "leaf", "kind": "switch", "tier": 0}]
    edges: list[dict[str, Any]] = []

    def join(source: str, target: str, kind: str, gbs: float) -> None:
        edge = {"source": source, "target": target, "kind": kind, "duplex": "full"}
        edges.append(edge | {"bandwidth_gbs": gbs})

    for host, gbs in enumerate(nic_gbs):
        nodes.append({"id": f"h{host}/nvs", "kind": "nvswitch", "host": f"h{host}"})
        for index in range(2):
            gpu, nic = f"h{host}/gpu{index}", f"h{host}/nic{index}"
            memory = {"memory_bytes": 80_000_000_000}
            nodes.append({"id": gpu, "kind": "gpu", "host": f"h{host}"} | memory)
            nodes.append({"id": nic, "kind": "nic", "host": f"h{host}"})
            join(gpu, f"h{host}/nvs", "nvlink", 450)
            join(gpu, nic, "pcie", 64)
            join(nic, "leaf", "ib", gbs)
    graph = {"name": "own-cluster"}
    head = {"schema": "moe-topology/1", "directed": True, "multigraph": False}
    return head | {"graph": graph, "nodes": nodes, "edges": edges}


def main(seconds: float) -> None:
    """Plan on equal and on unequal hosts and print both."""
    options = SolveOptions(time_limit=seconds, domain_imbalance_cap="1.20")
    for gbs in ([50.0, 50.0], [50.0, 25.0]):
        manifest = planner.solve(cluster(gbs), options=options)
        value = manifest.objective.value * 1e3
        print(f"NICs of {gbs} GB/s: busiest links take {value:.3f} ms in all layers")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
