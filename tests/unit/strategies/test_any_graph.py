"""``search`` on rings, grids and GPUs with several NICs: the optimum, counted apart."""

import random
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from planner.evaluator import evaluate
from planner.strategies.base import STRATEGIES, Limits
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from tests.oracles import any_graph
from tests.oracles.brute_force import Case
from tests.oracles.tiny_instances import tiny_instance

GRAPHS = {
    "ring of 3": lambda rng: any_graph.ring(rng, 3),
    "ring of 5": lambda rng: any_graph.ring(rng, 5),
    "grid": lambda rng: any_graph.ladder(rng, 2),
    "several NICs": any_graph.several_nics,
}


def drawn(gpus: int, seed: int) -> TokenPart:
    """Sixty tokens, each of its GPU's favourite expert and another."""
    rng = np.random.default_rng(seed)
    source_T = rng.integers(0, gpus, 60)
    first_T = np.where(rng.random(60) < 0.7, (source_T + 1) % gpus, source_T)
    ids = np.stack([first_T, (first_T + rng.integers(1, gpus, 60)) % gpus], axis=1)
    return TokenPart(
        experts_LTK=ids[None].astype(np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=running_index(source_T),
        row_T=np.arange(60),
    )


def counted(part: TokenPart, gpu_E: tuple[int, ...], merged: bool) -> Any:
    """Transfers between GPUs: one per expert, or per GPU that a token visits."""
    moved = np.zeros((len(gpu_E),) * 2)
    for source, ids in zip(part.source_T, part.experts_LTK[0], strict=True):
        visited = [gpu_E[expert] for expert in ids]
        for gpu in set(visited) if merged else visited:
            moved[source, gpu] += 1
    return moved


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu"])
@pytest.mark.parametrize("name", GRAPHS)
def test_search_finds_the_best_of_all_placements(name: str, traffic: str) -> None:
    """Law: one expert per GPU: no order of the experts loads the busiest link less."""
    topology = GRAPHS[name](random.Random(7))
    gpus = sum(node["kind"] == "gpu" for node in topology["nodes"])
    part = drawn(gpus, 3)
    made = tiny_instance(
        topology,
        part,
        experts=gpus,
        slots=1,
        traffic=traffic,
        selection="nearest",
    )
    legs = any_graph.legs_of(Case(topology, (1,) * gpus, 1, (1, 2), "link_time", ()))
    best = min(
        sum(
            max(float(np.sum(row * counted(part, gpu_E, traffic == "dedup_gpu")))
                for row in rows)
            for rows in legs
        )
        for gpu_E in permutations(range(gpus))
    )  # fmt: skip
    result = STRATEGIES.get("search")(made, Limits(seconds=20, threads=1))
    value = float(evaluate(made, result.plan, part).value)
    assert value == pytest.approx(best, rel=1e-9)
