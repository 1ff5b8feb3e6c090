"""``GET /examples``: request bodies that ``POST /plan`` accepts as they are."""

from fastapi import APIRouter

from api.schemas import Example, Examples

router = APIRouter(tags=["plans"])


@router.get("/examples")
async def examples() -> Examples:
    """Return runnable requests, the smallest first."""
    return Examples(examples=EXAMPLES)


def _two_hosts() -> dict[str, object]:
    """Return two hosts of two GPUs, one 50 GB/s NIC per GPU, as moe-topology/1."""
    nodes: list[dict[str, object]] = [{"id": "leaf", "kind": "switch", "tier": 0}]
    edges: list[dict[str, object]] = []
    for host in ("a", "b"):
        gpus = (f"{host}/gpu0", f"{host}/gpu1")
        nodes += [
            {"id": gpu, "kind": "gpu", "host": host, "memory_bytes": 80_000_000_000}
            for gpu in gpus
        ]
        nodes += [
            {"id": f"{host}/nic{n}", "kind": "nic", "host": host} for n in range(2)
        ]
        edges.append(_edge(gpus[0], gpus[1], "nvlink", 450))
        for n, gpu in enumerate(gpus):
            edges.append(_edge(gpu, f"{host}/nic{n}", "pcie", 64))
            edges.append(_edge(f"{host}/nic{n}", "leaf", "ib", 50))
    return {
        "schema": "moe-topology/1",
        "directed": True,
        "multigraph": False,
        "graph": {"name": "two-hosts"},
        "nodes": nodes,
        "edges": edges,
    }


def _edge(source: str, target: str, kind: str, gbs: int) -> dict[str, object]:
    """Return one full-duplex edge."""
    return {
        "source": source,
        "target": target,
        "kind": kind,
        "bandwidth_gbs": gbs,
        "duplex": "full",
    }


EXAMPLES = [
    Example(
        name="smallest",
        description="The bundled model and its recorded trace on two hosts of two.",
        request={"topology": "toy-2x2", "options": {"time_limit": 2}},
    ),
    Example(
        name="balanced-domains",
        description="Four hosts of eight GPUs; prefill, no redundancy, every NVLink "
        "domain at most 5 % above the mean.",
        request={
            "topology": "h100-4x8-rail",
            "trace": "tiny-moe",
            "options": {
                "traffic": "dedup_domain",
                "homes": "by_token",
                "redundant": "0",
                "domain_imbalance_cap": "1.05",
                "time_limit": 5,
            },
        },
    ),
    Example(
        name="inline",
        description="A cluster and expert counts of your own.",
        request={
            "topology": _two_hosts(),
            "model": "mixtral-8x7b",
            "trace": {
                "counts": {
                    "workload": "chat",
                    "phase": "decode",
                    "layers": list(range(32)),
                    "tokens": [
                        [4000 - 400 * ((expert + layer) % 8) for expert in range(8)]
                        for layer in range(32)
                    ],
                    "top_k": 2,
                }
            },
            "options": {"selection": "even", "time_limit": 2},
        },
    ),
]
