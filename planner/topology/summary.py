"""What a cluster is, in a few numbers: the content of ``planner topology describe``."""

from collections import Counter
from typing import Any

from planner.topology.graph import ClusterTopology, Link
from planner.topology.paths import Routes
from planner.units import GIGA


def summary(topology: ClusterTopology, routes: Routes) -> dict[str, Any]:
    """Return the figures of a cluster as plain JSON values."""
    kinds = Counter(data["kind"] for _, data in topology.graph.nodes(data=True))
    memory = Counter((gpu.profile, gpu.memory_bytes) for gpu in topology.gpus)
    sizes = Counter(len(members) for members in topology.domains)
    pairs = topology.gpu_count * (topology.gpu_count - 1)
    described = topology.graph.graph.get("description", "")
    return {
        "name": topology.name,
        "description": described,
        "gpus": topology.gpu_count,
        "hosts": len({gpu.host for gpu in topology.gpus}),
        "nodes": dict(sorted(kinds.items())),
        "profiles": [
            {"profile": profile, "memory_bytes": size, "gpus": count}
            for (profile, size), count in memory.items()
        ],
        "domains": {"count": len(topology.domains), "sizes": _plain(sizes)},
        "rails": max(sizes),
        "switches_by_tier": _plain(_tiers(topology)),
        "link_classes": _classes(topology),
        "routing": {
            "policy": "ecmp_fractional",
            "q": str(routes.q),
            "pairs_without_path": pairs - routes.table.reachable_pairs,
            "file_policy": topology.routing,
            "file_endpoint": topology.endpoint,
        },
        "workload": topology.workload,
        "down": list(topology.down),
        "assumptions": list(topology.assumptions),
        "warnings": list(topology.warnings),
    }


def _tiers(topology: ClusterTopology) -> Counter[int]:
    return Counter(
        data.get("tier", 0)
        for _, data in topology.graph.nodes(data=True)
        if data["kind"] == "switch"
    )


def _plain(counts: Counter[int]) -> dict[str, int]:
    return {str(key): count for key, count in sorted(counts.items())}


def _classes(topology: ClusterTopology) -> list[dict[str, Any]]:
    """Group the links by class and bandwidth, in file order."""
    found: dict[tuple[str, object, object], list[Link]] = {}
    for link in topology.links:
        key = link.link_class, link.nominal_bytes_per_s, link.bytes_per_s
        found.setdefault(key, []).append(link)
    return [
        {
            "class": links[0].link_class,
            "links": len(links),
            "cables": sum(link.cables for link in links),
            "nominal_gbs": float(links[0].nominal_bytes_per_s / GIGA),
            "effective_gbs": float(links[0].bytes_per_s / GIGA),
        }
        for links in found.values()
    ]
