"""Traffic ``direct`` on the paper's 16 layers of 16 experts: value against bound.

``python -m benchmarks.flow [--topology paper-h100-32x8-hdr] [--seconds 60]
[--kinds uniform independent affine] [--top-k 1 2]`` prints one row per kind of trace:
link tokens of ``auto``, the bound that the verifier proves, their gap, and beside it
the best baseline and recursive bisection (steepest pair swaps on the cut between the
halves of the hosts of an EP set, then of each half; experts stay in their layer).

Traces of 65,536 tokens, homes ``by_token``, nothing held out, drawn with
``numpy.random.default_rng(0)``. ``uniform`` has every (home, first expert, step)
once and the second expert at every distance alike, so that all neighbours meet
equally often; ``independent`` draws each layer from a lognormal popularity of its own
(σ 0.5); ``affine`` walks along lognormal weights (σ 1.0) from expert to expert.
"""

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from planner.arrays import FloatArray, IntArray
from planner.evaluator import evaluate_planning
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pipeline.certifying import certified_layers, certified_whole
from planner.pipeline.solving import load
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import (
    BASELINES,
    AbsentBaselineError,
    published_plan,
)
from planner.strategies.flow.flows import Flows, flows_of, slots_of
from planner.workload.known_models import KNOWN_MODELS
from planner.workload.parts import TokenPart
from planner.workload.trace_writer import write_trace

LAYERS, EXPERTS, GPUS, TOKENS = 16, 16, 256, 65536
KINDS = ("uniform", "independent", "affine")


def choices(kind: str, top_k: int, rng: np.random.Generator) -> IntArray:
    """Return the experts of every token, best first, [L, T, K]."""
    if kind == "uniform":
        token = np.arange(TOKENS)
        first_T, step_T = token // GPUS % EXPERTS, token // GPUS // EXPERTS
        # A set of homes holds each distance to the second expert equally often.
        apart_T = 1 + (token + token // GPUS) % (EXPERTS - 1)
        return np.stack(
            [
                np.stack(
                    [
                        (first_T + layer * step_T + k * apart_T) % EXPERTS
                        for k in range(top_k)
                    ],
                    axis=1,
                )
                for layer in range(LAYERS)
            ]
        )
    weight_EE = rng.lognormal(0.0, 1.0, (LAYERS, EXPERTS, EXPERTS))
    if kind == "independent":
        weight_EE = np.repeat(rng.lognormal(0.0, 0.5, (LAYERS, 1, EXPERTS)), EXPERTS, 1)
    stand_T, found = rng.integers(0, EXPERTS, TOKENS), []
    for layer in range(LAYERS):
        score = np.log(weight_EE[layer][stand_T]) + rng.gumbel(size=(TOKENS, EXPERTS))
        found.append(np.argsort(-score, axis=1)[:, :top_k])
        stand_T = found[-1][:, 0]
    return np.stack(found)


def problem(topology: str, kind: str, top_k: int, folder: Path) -> PlacementInstance:
    """Return the instance of a kind of trace."""
    path = folder / f"{kind}-{top_k}.parquet"
    ids_LTK = choices(kind, top_k, np.random.default_rng(0))
    write_trace(
        path,
        metadata={"num_experts": EXPERTS, "top_k": top_k, "order": "router"},
        seq_id=np.arange(TOKENS) // GPUS,
        pos=np.arange(TOKENS) % GPUS,
        tag=kind,
        phase="prefill",
        experts=dict(enumerate(ids_LTK)),
    )
    spec = asdict(replace(KNOWN_MODELS["paper-16x16"], top_k=top_k))
    model: dict[str, Any] = {"schema": "moe-model/1", **spec}
    model["moe_layers"] = list(model["moe_layers"])
    options = SolveOptions(traffic="direct", objective="link_tokens", holdout="0")
    return load(topology, model=model, trace=path, options=options).instance


def bisected(instance: PlacementInstance, flows: Flows) -> PlacementPlan:
    """Return the plan of recursive bisection."""
    weight_NN = np.zeros((flows.nodes, flows.nodes))
    np.add.at(weight_NN, (flows.tail_Y, flows.head_Y), flows.count_Y)
    weight_NN = weight_NN + weight_NN.T
    rank_N = np.arange(flows.nodes)
    experts = np.arange(flows.ep, flows.nodes).reshape(-1, flows.experts)
    _halve(weight_NN, experts, np.arange(flows.ep), rank_N)
    return PlacementPlan(
        layer_numbers=instance.model.moe_layers,
        slots_LGJ=slots_of(flows, rank_N, instance.slots_per_gpu),
    )


def _halve(
    weight_NN: FloatArray, node_LE: IntArray, rank_R: IntArray, rank_N: IntArray
) -> None:
    """Split the experts of every layer and the ranks in two until one rank is left."""
    if rank_R.size == 1:
        rank_N[node_LE.ravel()] = rank_R[0]
        return
    side_N = np.zeros(len(rank_N))
    half = node_LE.shape[1] // 2
    side_N[node_LE[:, :half]], side_N[node_LE[:, half:]] = -1.0, 1.0
    side_N[rank_R[: rank_R.size // 2]] = -1.0
    side_N[rank_R[rank_R.size // 2 :]] = 1.0
    while True:
        # Moving a node gains what it sends across less what it keeps.
        gain_N = -side_N * (weight_NN @ side_N)
        best, pair = 1e-9, None
        for row in node_LE:
            left, right = row[side_N[row] < 0], row[side_N[row] > 0]
            both = weight_NN[np.ix_(left, right)]
            gain = gain_N[left][:, None] + gain_N[right][None, :] - 2 * both
            if gain.max() > best:
                at = np.unravel_index(int(gain.argmax()), gain.shape)
                best, pair = float(gain.max()), (left[at[0]], right[at[1]])
        if pair is None:
            break
        side_N[list(pair)] *= -1
    for sign, ranks in (
        (-1, rank_R[: rank_R.size // 2]),
        (1, rank_R[rank_R.size // 2 :]),
    ):
        inside = np.stack([row[side_N[row] * sign > 0] for row in node_LE])
        _halve(weight_NN, inside, ranks, rank_N)


def best_baseline(instance: PlacementInstance) -> float:
    """Return the least value of any baseline."""
    found = []
    for name in BASELINES.names():
        try:
            plan = published_plan(instance, name)
        except AbsentBaselineError:
            continue
        found.append(float(evaluate_planning(instance, plan).value))
    return min(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", default="paper-h100-32x8-hdr")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--top-k", nargs="+", type=int, default=[1, 2])
    given = parser.parse_args()
    print("kind top-k value bound certified gap reason baseline bisection ratio")
    for top_k in given.top_k:
        for kind in given.kinds:
            with tempfile.TemporaryDirectory() as folder:
                instance = problem(given.topology, kind, top_k, Path(folder))
            limits = Limits(seconds=given.seconds)
            result = STRATEGIES.get("auto")(instance, limits)
            value = evaluate_planning(instance, result.plan).value
            part = instance.planning
            assert isinstance(part, TokenPart) and result.bound is not None
            flows = flows_of(part, instance.layout, EXPERTS)
            halves = evaluate_planning(instance, bisected(instance, flows)).value
            layers = certified_layers(instance, result.bound)
            proven = certified_whole(instance, layers or ())
            print(
                f"{kind} {top_k} {float(value):.1f} {result.bound.value:.1f} "
                f"{float(proven):.1f} {float(1 - proven / value):.4f} {result.reason} "
                f"{best_baseline(instance):.1f} {float(halves):.1f} "
                f"{float(value / halves):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
