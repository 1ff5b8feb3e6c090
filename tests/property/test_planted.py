"""Instances made around a placement that no other can beat: it is found again."""

from dataclasses import replace

import numpy as np
import pytest

from planner import clock
from planner.evaluator import evaluate_planning
from planner.instance import Objective, PlacementInstance
from planner.strategies import base
from planner.strategies.search import strategy as search
from planner.workload.homes import running_index
from planner.workload.parts import CountsPart, TokenPart
from tests.instances import instance

SEEDS = range(4)
OUTSIDE = ("ib:nic>switch0", "ib:switch0>nic")


@pytest.fixture(autouse=True)
def little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny instances need no more."""
    monkeypatch.setattr(search, "PROPOSALS_PER_SLOT", 5_000)


def solved(problem: PlacementInstance, strategy: str = "auto") -> base.SolveResult:
    """Run a strategy with a minute of counted work."""
    with clock.counting_work():
        limits = base.Limits(seconds=60, threads=1)
        return base.STRATEGIES.get(strategy)(problem, limits)


def with_tokens(
    problem: PlacementInstance, experts_TK: np.ndarray, source_T: np.ndarray
) -> PlacementInstance:
    """Return the instance of one layer with these tokens."""
    part = TokenPart(
        experts_LTK=experts_TK[None].astype(np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=running_index(source_T),
        row_T=np.arange(source_T.size),
    )
    (load,) = problem.workloads
    return replace(problem, workloads=(replace(load, planning=part),))


def chosen_from(
    pools: np.ndarray, tokens: int, top_k: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens that each choose from one pool, and the pool of each."""
    pool_T = rng.integers(0, len(pools), tokens)
    picked = [rng.choice(pools[pool], top_k, replace=False) for pool in pool_T]
    return np.stack(picked), pool_T


@pytest.mark.parametrize("seed", SEEDS)
def test_experts_next_to_their_tokens_move_nothing(seed: int) -> None:
    """Every GPU's tokens want the experts of one GPU: no link needs to carry any."""
    rng = np.random.default_rng(seed)
    pools = rng.permutation(12).reshape(4, 3)
    experts_TK, pool_T = chosen_from(pools, 200, 2, rng)
    home = rng.permutation(4)
    plain = instance([2, 2], experts=12, slots=3, traffic="copies")
    problem = with_tokens(plain, experts_TK, home[pool_T])
    result = solved(problem)
    assert evaluate_planning(problem, result.plan).value == 0
    assert result.bound is not None and result.bound.value == 0
    assert {frozenset(row) for row in result.plan.slots_LGJ[0].tolist()} == {
        frozenset(pool) for pool in pools.tolist()
    }


@pytest.mark.parametrize("traffic", ["dedup_domain", "dedup_gpu"])
@pytest.mark.parametrize("seed", SEEDS)
def test_experts_of_one_kind_share_the_domain_of_its_tokens(
    traffic: str, seed: int
) -> None:
    """Every domain's tokens want the experts of one domain: none needs to leave."""
    rng = np.random.default_rng(seed)
    pools = rng.permutation(16).reshape(2, 8)
    experts_TK, pool_T = chosen_from(pools, 300, 3, rng)
    source_T = 2 * pool_T + rng.integers(0, 2, 300)
    plain = instance([2, 2], experts=16, slots=4, traffic=traffic)
    scope = Objective(name="link_tokens", link_classes=OUTSIDE)
    problem = with_tokens(replace(plain, objective=scope), experts_TK, source_T)
    result = solved(problem)
    assert evaluate_planning(problem, result.plan).value == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_that_share_a_domain_are_sent_to_once(seed: int) -> None:
    """Eight tokens of every GPU want each of four pools: one transfer for most.

    A token whose experts are in one domain is sent once, or not at all where that is
    its own: three of four, 192 of 256. Experts in two domains are sent to at least
    once from everywhere. So eight NICs receive 192 at least, 24 some, and 24 go back.
    """
    rng = np.random.default_rng(seed)
    pools = rng.permutation(16).reshape(4, 4)
    pool_T, source_T = (each.ravel() for each in np.indices((4, 8, 8))[:2])
    plain = instance([2, 2, 2, 2], experts=16, slots=2, traffic="dedup_domain")
    problem = with_tokens(plain, pools[pool_T], source_T)
    result = solved(problem, "search")
    scores = evaluate_planning(problem, result.plan)
    assert scores.values["link_tokens"]["sequential"] == 48
    assert {
        frozenset(pair.ravel().tolist())
        for pair in result.plan.slots_LGJ[0].reshape(4, 2, 2)
    } == {frozenset(pool) for pool in pools.tolist()}


@pytest.mark.parametrize("slots", [2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_loads_that_part_evenly_are_parted_evenly(slots: int, seed: int) -> None:
    """Every GPU's experts add up to 1,000: max/mean 1 is possible, found and proven."""
    rng = np.random.default_rng(seed)
    gpus = 6
    cut_GJ = np.sort(rng.integers(1, 1000, (gpus, slots - 1)), axis=1)
    ends = np.concatenate(
        [np.zeros((gpus, 1), int), cut_GJ, np.full((gpus, 1), 1000)], axis=1
    )
    loads = rng.permutation(np.diff(ends, axis=1).ravel())
    plain = instance(
        [3, 3], experts=gpus * slots, slots=slots, objective="gpu_tokens",
        traffic="copies", selection="even", counts=[loads.tolist()], top_k=1,
    )  # fmt: skip
    assert isinstance(plain.planning, CountsPart)
    result = solved(plain)
    assert evaluate_planning(plain, result.plan).first.gpu_imbalance_L == (1,)
    assert result.reason == "optimal"


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_that_make_loads_even_are_found(seed: int) -> None:
    """One expert of 300 needs three copies beside three of 50, two others are 150.

    Four GPUs of two slots: 300 in three parts of 100 with 50 each, and a pair of 75:
    150 everywhere.
    """
    rng = np.random.default_rng(seed)
    loads = rng.permutation([300, 50, 50, 50, 75, 75])
    plain = instance(
        [2, 2], experts=6, slots=2, objective="gpu_tokens", traffic="copies",
        selection="even", counts=[loads.tolist()], top_k=1,
    )  # fmt: skip
    result = solved(plain)
    assert evaluate_planning(plain, result.plan).first.gpu_imbalance_L == (1,)
    assert result.reason == "optimal"
