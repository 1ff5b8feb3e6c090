"""One expert per GPU altogether on the paper's cluster: values, bounds, a baseline.

    python -m benchmarks.direct [ROW ...] [--trace uniform affine] [--time-limit 120]

Plans ``paper-16x16`` (16 layers of 16 experts, an expert per GPU, 256 GPUs) for traffic
``copies`` (every token goes home after every layer), ``direct`` top-1 and ``direct``
top-2, objective ``link_tokens``. One port per host is ``paper-h100-32x8-hdr``, a port
per GPU its variant ``-rail8``; ``flat`` has hosts of one GPU, so that all links are
equal. Beside the value and its certified bound stands recursive bisection of the graph
of flows, judged alike, the best of a few seeds: ``plain`` (spectral, refined by
Kernighan and Lin) and ``balanced`` (every cut halves every layer, as ExFlow does;
refined by swaps in a layer). The ratios are against the better of all, on the tokens
planned for and on sequences not seen.

Traces, from a seed: ``uniform`` (every expert after every expert equally often, every
home with every expert), ``sampled`` (uniform in the mean), ``independent`` (popularity
of an expert lognormal, layers independent), ``affine`` (popularity, and the next layer
depends on the best expert of the last), ``mixtral`` (the calibrated latent model).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from planner.arrays import BoolArray, FloatArray, IntArray
from planner.evaluator import evaluate, evaluate_planning
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline import load
from planner.pipeline.certifying import certified_bound
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.flow.flows import Flows, flows_of, slots_of
from planner.workload.parts import TokenPart
from planner.workload.presets import load_model
from planner.workload.synth.calibrated import draw_routing
from planner.workload.synth.latent import cut_texts
from planner.workload.synth.load import Choice
from planner.workload.synth.presets import PRESETS
from planner.workload.trace_writer import write_trace

LAYERS, EXPERTS, HOMES = 16, 16, 256
TOKENS = 200_000
BISECTIONS = 4
"""Seeds that recursive bisection tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A mode of traffic on a cluster."""

    traffic: str
    top_k: int
    topology: str = "paper-h100-32x8-hdr"


ROWS = {
    "home": Row(traffic="copies", top_k=2),
    "top1-equal": Row(traffic="direct", top_k=1, topology="flat"),
    "top1": Row(traffic="direct", top_k=1),
    "top2": Row(traffic="direct", top_k=2),
    "top2-rail8": Row(traffic="direct", top_k=2, topology="paper-h100-32x8-hdr-rail8"),
}


def uniform(top_k: int, seed: int) -> tuple[IntArray, IntArray]:
    """Return choices [L, T, K] and homes: every pair that can meet does so equally.

    Homes (u, v), a start a and a step c: expert a + l·u is best in layer l, and the
    second is c further on.
    """
    del seed
    u, v, a, c = (
        axis.ravel() for axis in np.indices((EXPERTS, EXPERTS, EXPERTS, EXPERTS - 1))
    )
    best_LT = (a + np.arange(LAYERS)[:, None] * u) % EXPERTS
    ids_LTK = np.stack([best_LT, (best_LT + c + 1) % EXPERTS], axis=2)
    return ids_LTK[:, :, :top_k], u * EXPERTS + v


def sampled(top_k: int, seed: int) -> tuple[IntArray, None]:
    """Return choices [L, T, K] that are all alike in the mean."""
    return _drawn(seed, top_k, popularity=0.0, affinity=0.0), None


def independent(top_k: int, seed: int) -> tuple[IntArray, None]:
    """Return choices [L, T, K] by popularity alone, lognormal with σ 0.5."""
    return _drawn(seed, top_k, popularity=0.5, affinity=0.0), None


def affine(top_k: int, seed: int) -> tuple[IntArray, None]:
    """Return choices [L, T, K] that depend on the best expert before, σ 1."""
    return _drawn(seed, top_k, popularity=0.3, affinity=1.0), None


def mixtral(top_k: int, seed: int) -> tuple[IntArray, None]:
    """Return choices [L, T, K] of the model calibrated to Mixtral's routing."""
    choice = Choice(experts=EXPERTS, top_k=top_k)
    texts = cut_texts(TOKENS, TOKENS // 250, 4)
    routing = draw_routing(PRESETS["mixtral"], choice, texts, (LAYERS, seed))
    return np.stack(routing.chosen_TK).astype(np.int64), None


Halve = Callable[[IntArray, FloatArray, np.random.Generator], BoolArray]
Draw = Callable[[int, int], tuple[IntArray, IntArray | None]]
TRACES: dict[str, Draw] = {
    draw.__name__: draw for draw in (uniform, sampled, independent, affine, mixtral)
}


def _drawn(seed: int, top_k: int, *, popularity: float, affinity: float) -> IntArray:
    """Draw without replacement by weight; weights are lognormal of both spreads."""
    rng = np.random.default_rng(seed)
    best_T, layers = np.zeros(TOKENS, dtype=np.int64), []
    for _ in range(LAYERS):
        weight_E = rng.normal(0.0, popularity, EXPERTS)
        weight_EE = weight_E + rng.normal(0.0, affinity, (EXPERTS, EXPERTS))
        score_TE = weight_EE[best_T] + rng.gumbel(size=(TOKENS, EXPERTS))
        layers.append(np.argsort(-score_TE, axis=1)[:, :top_k])
        best_T = layers[-1][:, 0]
    return np.stack(layers)


def main() -> None:
    """Print the table of the rows and traces asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--trace", nargs="*", default=list(TRACES), choices=TRACES)
    parser.add_argument("--layers", default="sequential")
    parser.add_argument("--time-limit", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(
        "| row | trace | tokens per planned token | bound | gap | proven | plain "
        "| balanced | ratio | unseen | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in given.rows or ROWS:
        for trace in given.trace:
            print(
                f"| {name} | {trace} | {_figures(ROWS[name], trace, given)} |",
                flush=True,
            )
    print(f"\nload {os.getloadavg()[0]:.1f}")


def _figures(row: Row, trace: str, given: argparse.Namespace) -> str:
    problem = _problem(row, trace, given)
    begun = time.perf_counter()
    limits = Limits(seconds=given.time_limit, threads=given.threads, seed=given.seed)
    result = STRATEGIES.get("auto")(problem, limits)
    seconds = time.perf_counter() - begun
    value = evaluate_planning(problem, result.plan).value
    if result.bound is None:
        raise SystemExit("no bound")
    bound = certified_bound(problem, result.bound)
    if bound is None:
        raise SystemExit("the bound has no certificate")
    gap = 1 - float(bound / value)
    proven = "yes" if gap <= 1e-9 else "no"
    part = problem.planning
    if not isinstance(part, TokenPart):
        raise SystemExit("a trace of tokens is needed")
    plans = {way: bisected(problem, way, given.seed) for way in WAYS}
    others = [
        min(evaluate_planning(problem, plan).value for plan in made)
        for made in plans.values()
    ]
    shown = [f"{float(each / part.token_count):.5f}" for each in (value, bound)]
    shown += [f"{gap:.2%}", proven]
    shown += [f"{float(each / part.token_count):.5f}" for each in others]
    shown += [f"{float(value / min(others)):.3f}", "-", f"{seconds:.1f}"]
    held = problem.holdout
    if held is not None:
        least = min(
            evaluate(problem, plan, held).value
            for made in plans.values()
            for plan in made
        )
        shown[-2] = f"{float(evaluate(problem, result.plan, held).value / least):.3f}"
    return " | ".join(shown)


def _problem(row: Row, trace: str, given: argparse.Namespace) -> PlacementInstance:
    ids_LTK, home_T = TRACES[trace](row.top_k, given.seed)
    tokens = ids_LTK.shape[1]
    options = SolveOptions(
        traffic=row.traffic,
        policy="one_expert_per_gpu_total",
        objective="link_tokens",
        layers=given.layers,
        holdout="0" if home_T is not None else "0.5",
        kv_tokens=1024,
        batch_tokens=1024,
    )
    model = _model(row.top_k)
    topology = _flat() if row.topology == "flat" else row.topology
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "walks.parquet"
        write_trace(
            path,
            metadata={
                "num_experts": EXPERTS,
                "top_k": row.top_k,
                "order": "router",
                "synthetic": trace,
                "source": "synthetic: benchmarks/direct.py",
            },
            seq_id=np.arange(tokens) // 250,
            pos=np.arange(tokens) % 250,
            tag="walks",
            phase="prefill",
            rank=home_T,
            experts=dict(enumerate(ids_LTK)),
        )
        return load(topology, model=model, trace=path, options=options).instance


def _model(top_k: int) -> dict[str, Any]:
    """Return ``paper-16x16`` as a document, with another top-k."""
    document = asdict(replace(load_model("paper-16x16"), top_k=top_k))
    document["moe_layers"] = list(document["moe_layers"])
    return {"schema": "moe-model/1", **document}


def _flat() -> dict[str, Any]:
    """Return as many hosts of one GPU, each with one HDR port on one switch."""
    return {
        "schema": "moe-topology/1",
        "graph": {
            "name": "flat",
            "profiles": {"gpu": {"memory_bytes": 64 * 10**9}},
        },
        "generator": {
            "kind": "fat_tree",
            "nodes": HOMES,
            "gpus_per_node": 1,
            "profile": "gpu",
            "nvlink": {"bandwidth_gbs": 450},
            "pcie_gbs": 64,
            "nic_gbs": 25,
            "hosts_per_leaf": HOMES,
            "ports": HOMES,
        },
    }


def bisected(problem: PlacementInstance, way: str, seed: int) -> list[PlacementPlan]:
    """Return plans of recursive bisection of the graph of flows, one per seed."""
    part = problem.planning
    if not isinstance(part, TokenPart):
        raise SystemExit("a trace of tokens is needed")
    chained = problem.traffic == "direct"
    flows = flows_of(part, problem.layout, EXPERTS, chained=chained)
    weight_NN = _weights(flows)
    domain_G = problem.layout.domain_G
    plans = []
    for turn in range(BISECTIONS):
        rng = np.random.default_rng([seed, turn])
        nodes, halved = np.arange(len(weight_NN)), WAYS[way]
        parts = _parts(nodes, weight_NN, int(domain_G.max()) + 1, halved, rng)
        rank_N = np.arange(flows.nodes)
        for domain, held in enumerate(parts):
            rank_N[flows.ep + held] = np.flatnonzero(domain_G == domain)[: held.size]
        slots_LGJ = slots_of(flows, rank_N, 1)
        numbers = problem.model.moe_layers
        plans.append(PlacementPlan(layer_numbers=numbers, slots_LGJ=slots_LGJ))
    return plans


def _weights(flows: Flows) -> FloatArray:
    """Return the transfers between experts, both ways and all legs together."""
    inside = (flows.tail_Y >= flows.ep) & (flows.head_Y >= flows.ep)
    tail_Y, head_Y = flows.tail_Y[inside] - flows.ep, flows.head_Y[inside] - flows.ep
    size = flows.nodes - flows.ep
    weight_NN = np.zeros((size, size))
    np.add.at(weight_NN, (tail_Y, head_Y), flows.count_Y[inside])
    both_NN: FloatArray = weight_NN + weight_NN.T
    return both_NN


def _parts(
    nodes: IntArray,
    weight_NN: FloatArray,
    parts: int,
    halved: Halve,
    rng: np.random.Generator,
) -> list[IntArray]:
    """Cut into 2^k parts of one size."""
    if parts == 1:
        return [nodes]
    first_N = halved(nodes, weight_NN[np.ix_(nodes, nodes)], rng)
    return [
        each
        for half in (nodes[first_N], nodes[~first_N])
        for each in _parts(half, weight_NN, parts // 2, halved, rng)
    ]


def _fiedler(weight_NN: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the Fiedler vector; ties, as where all is alike, are broken at random."""
    laplacian_NN = np.diag(weight_NN.sum(axis=1)) - weight_NN
    vector_N: FloatArray = np.linalg.eigh(laplacian_NN)[1][:, 1]
    return vector_N + 1e-9 * rng.standard_normal(vector_N.size)


def plain(
    nodes: IntArray, weight_NN: FloatArray, rng: np.random.Generator
) -> BoolArray:
    """Halve by the Fiedler vector, then Kernighan and Lin."""
    order = np.argsort(_fiedler(weight_NN, rng)).tolist()
    half = nodes.size // 2
    found = nx.community.kernighan_lin_bisection(
        nx.from_numpy_array(weight_NN),
        (set(order[:half]), set(order[half:])),
        max_iter=20,
        weight="weight",
        seed=int(rng.integers(2**31)),
    )
    first_N = np.zeros(nodes.size, dtype=np.bool_)
    first_N[list(found[0])] = True
    return first_N


def balanced(
    nodes: IntArray, weight_NN: FloatArray, rng: np.random.Generator
) -> BoolArray:
    """Halve every layer by the Fiedler vector, then swap in layers while it helps."""
    layer_N = nodes // EXPERTS
    if np.unique(layer_N).size == nodes.size:
        return plain(nodes, weight_NN, rng)
    order = np.lexsort((_fiedler(weight_NN, rng), layer_N))
    first_N = np.zeros(nodes.size, dtype=np.bool_)
    for layer in np.unique(layer_N):
        mine = order[layer_N[order] == layer]
        first_N[mine[: mine.size // 2]] = True
    while True:
        side_N = np.where(first_N, 1.0, -1.0)
        # What the cut loses if a node changes sides.
        gain_N = -side_N * (weight_NN @ side_N)
        gain_NN = gain_N[:, None] + gain_N[None] - 2 * weight_NN
        open_NN = first_N[:, None] & ~first_N[None]
        open_NN &= layer_N[:, None] == layer_N[None]
        gain_NN[~open_NN] = 0.0
        one, two = np.unravel_index(int(gain_NN.argmax()), gain_NN.shape)
        if gain_NN[one, two] <= 1e-6:
            return first_N
        first_N[one], first_N[two] = False, True


WAYS: dict[str, Halve] = {"plain": plain, "balanced": balanced}


if __name__ == "__main__":
    main()
