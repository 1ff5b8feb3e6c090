"""Fast: legal and even placements, EPLB as the start, bounds that can be proven."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numba import njit

from planner.arrays import FloatArray, IdArray, IntArray
from planner.errors import UsageError
from planner.evaluator import evaluate
from planner.instance import Caps, Objective, PlacementInstance
from planner.pipeline.certifying import certified_layers
from planner.plan import PlacementPlan
from planner.strategies.base import STRATEGIES, Limits, SolveResult
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.baselines.eplb import pack_copies
from planner.strategies.fast import strategy
from planner.strategies.fast.strategy import LONG, QUICK, moves_within, place
from planner.strategies.fast.two_slots import HALF, empty_state, reach
from planner.workload.counts import read_counts
from planner.workload.parquet import TraceFile
from planner.workload.parts import CountsPart
from tests.instances import instance

AMPLE = Limits(seconds=60.0, threads=1)


def solve(problem: PlacementInstance, limits: Limits = AMPLE) -> SolveResult:
    """Run the strategy under its registered name."""
    return STRATEGIES.get("fast")(problem, limits)


def placed(
    loads: list[list[int]] | IntArray,
    gpus: int,
    slots: int,
    *,
    moves: int | None = None,
    domains: int = 1,
    seed: int = 0,
) -> IdArray:
    """Return slots of these loads, GPUs in ``domains`` equal domains."""
    load_LE = np.asarray(loads)
    domain_G = np.arange(gpus) * domains // gpus
    work = LONG * load_LE.shape[1] if moves is None else moves
    limits = Limits(threads=1, seed=seed)
    return place(load_LE, domain_G, slots, moves=work, limits=limits)[0]


def loads_of(load_E: IntArray, slots_GJ: IdArray) -> FloatArray:
    """Load of every GPU where copies share their expert's load evenly."""
    copies_E = np.bincount(slots_GJ.ravel(), minlength=load_E.size)
    return (load_E / np.maximum(copies_E, 1))[slots_GJ].sum(axis=1)


def legal_placements(experts: int, gpus: int, slots: int) -> Iterator[IdArray]:
    """Every way to give GPUs, in any order, distinct experts that covers them all."""
    rows = list(combinations(range(experts), slots))
    for chosen in combinations_with_replacement(rows, gpus):
        if len({expert for row in chosen for expert in row}) == experts:
            yield np.asarray(chosen)


def random_loads(layers: int, experts: int, seed: int = 0) -> IntArray:
    """Skewed loads, as routing gives them."""
    rng = np.random.default_rng(seed)
    return (rng.lognormal(0, 1, (layers, experts)) * 1000).astype(np.int64)


def test_without_spare_slots_the_greatest_goes_with_the_smallest() -> None:
    """6, 3, 2, 1 on two GPUs: 6 + 1 and 3 + 2."""
    (slots_GJ,) = placed([[3, 6, 1, 2]], 2, 2)
    assert sorted(sorted(row) for row in slots_GJ.tolist()) == [[0, 3], [1, 2]]


def test_one_slot_per_gpu_shares_the_hottest_experts() -> None:
    """8, 3, 2 on five GPUs: 8 in three, the others in one; the maximum is 3."""
    (slots_GJ,) = placed([[8, 3, 2]], 5, 1)
    assert sorted(slots_GJ.ravel().tolist()) == [0, 0, 0, 1, 2]


def test_two_copies_of_one_expert_are_parted() -> None:
    """4, 4, 1, 1 and six slots: three copies of one 4 cannot meet on a GPU."""
    (slots_GJ,) = placed([[4, 4, 1, 1]], 3, 2)
    load_E = np.asarray([4, 4, 1, 1])
    assert all(len(set(row)) == 2 for row in slots_GJ.tolist())
    best = min(loads_of(load_E, each).max() for each in legal_placements(4, 3, 2))
    assert loads_of(load_E, slots_GJ).max() == best


def test_with_no_moves_more_than_two_slots_are_eplb_repaired() -> None:
    """Steps begin from EPLB's own slots (rule 30), duplicates replaced (rule 29)."""
    counts = random_loads(6, 10).tolist()
    problem = instance([6], experts=10, slots=3, layers=6, counts=counts)
    start = repaired(problem, published_plan(problem, "eplb_global"))
    found = placed(counts, 6, 3, moves=0)
    assert found.tolist() == start.slots_LGJ.tolist()
    assert published_plan(problem, "eplb_global").has_duplicates()


@pytest.mark.parametrize(
    ("experts", "gpus", "slots"),
    [(5, 8, 1), (4, 3, 2), (6, 4, 2), (5, 4, 2), (6, 3, 3), (4, 2, 3)],
)
def test_tiny_layers_are_at_or_near_the_optimum(
    experts: int, gpus: int, slots: int
) -> None:
    """Against every legal placement: one slot always, else mostly and within 6 %."""
    load_LE = random_loads(40, experts, seed=slots)
    every = list(legal_placements(experts, gpus, slots))
    excess = []
    for load_E, slots_GJ in zip(load_LE, placed(load_LE, gpus, slots), strict=True):
        best = min(loads_of(load_E, each).max() for each in every)
        excess.append(loads_of(load_E, slots_GJ).max() / best - 1)
    assert min(excess) > -1e-9
    assert max(excess) < (1e-9 if slots == 1 else 0.06)
    assert sum(each < 1e-9 for each in excess) >= 36


def test_more_moves_reach_less() -> None:
    """Pairs of 64 experts on 64 GPUs: far below EPLB's maximum, as moves go on."""
    load_LE = random_loads(8, 64)
    peaks = [
        np.mean([loads_of(*each).max() for each in zip(load_LE, found, strict=True)])
        for found in (placed(load_LE, 64, 2, moves=moves) for moves in (0, 400, 4000))
    ]
    mean = load_LE.sum(axis=1).mean() / 64
    assert peaks[0] > peaks[1] > peaks[2]
    assert peaks[2] - mean < 0.5 * (peaks[0] - mean)


def test_a_layer_without_tokens_is_placed_all_the_same() -> None:
    """All loads 0: every expert is covered and no GPU holds one twice."""
    for slots in (1, 2, 3):
        (slots_GJ,) = placed([[0] * 5], 6, slots)
        assert set(slots_GJ.ravel().tolist()) == set(range(5))
        assert all(len(set(row)) == slots for row in slots_GJ.tolist())


def test_one_gpu_and_full_gpus_are_placed() -> None:
    """A GPU that has a slot for every expert holds every expert."""
    assert sorted(placed([[5, 1]], 1, 2)[0].ravel().tolist()) == [0, 1]
    for row in placed([[5, 1, 7]], 4, 3)[0].tolist():
        assert sorted(row) == [0, 1, 2]


def test_gpus_are_dealt_evenly_to_domains() -> None:
    """Loads 8, 7, …, 1 in one slot each: both domains get 18 of 36."""
    slots_GJ = placed([list(range(8, 0, -1))], 8, 1, domains=2)[0]
    load_G = loads_of(np.arange(8, 0, -1), slots_GJ)
    assert load_G.reshape(2, 4).sum(axis=1).tolist() == [18.0, 18.0]


def test_domains_of_unequal_size_are_compared_per_gpu() -> None:
    """Loads 6, …, 1 on 2 + 4 GPUs: 6 + 2 and 5 + 4 + 3 + 1, not 6 + 3 and the rest."""
    load_LE = np.asarray([[6, 5, 4, 3, 2, 1]])
    domain_G = np.asarray([0, 0, 1, 1, 1, 1])
    slots_LGJ, _ = place(load_LE, domain_G, 1, moves=0, limits=AMPLE)
    load_G = loads_of(load_LE[0], slots_LGJ[0])
    assert sorted(load_G[:2].tolist()) == [2.0, 6.0]


@njit  # type: ignore[untyped-decorator]
def moved(
    load_E: Any, copies_E: Any, target: float, moves: int, random_1: Any
) -> tuple[Any, Any]:
    """Return the lack and ``depth`` after moves; ``copies_E`` are changed."""
    state = empty_state(load_E, copies_E)
    lack, _ = reach(state, target, (moves, 16), -1, random_1)
    return lack, state.depth_S


@pytest.mark.parametrize("share", [1.0, 1.05, 1.3])
def test_depth_kept_by_increments_is_counted_again(share: float) -> None:
    """After many moves: copies of at most s units less those that need one of them."""
    for seed, load_E in enumerate(random_loads(20, 24).astype(np.float64)):
        copies_E = np.ones(24, dtype=np.int64)
        copies_E[:8] += 1
        random_1 = np.asarray([seed + 1], dtype=np.uint64)
        target = float(load_E.sum() / 16 * share)
        lack, depth_S = moved(load_E, copies_E, target, 300, random_1)
        assert copies_E.sum() == 32
        size_P = np.repeat(load_E / copies_E, copies_E)
        units_P = np.ceil(size_P * (2 * HALF / target) - 1e-9)
        small_P = units_P <= HALF
        for s, depth in zip(range(-1, HALF), depth_S.tolist(), strict=True):
            # s = −1 stands for all that no partner is small enough for.
            fits = int((small_P & (units_P <= s)).sum())
            needs = int((~small_P & (np.maximum(2 * HALF - units_P, -1) <= s)).sum())
            assert depth == fits - needs
        assert lack == -int(np.minimum(depth_S, 0).sum())


def test_the_result_depends_on_the_seed_and_not_on_threads() -> None:
    """One thread, three threads: the same; another seed: another placement."""
    problem = instance([4, 4], experts=16, slots=3, layers=5, objective="gpu_tokens")

    def slots(**given: Any) -> list[Any]:
        return solve(problem, replace(AMPLE, **given)).plan.slots_LGJ.tolist()

    assert slots() == slots() == slots(threads=3) == slots(seconds=90.0)
    assert slots() != slots(seed=1)


def test_the_time_limit_chooses_one_of_two_budgets() -> None:
    """58 layers of 256 experts: 0.25 s and more allow the long one."""
    load_LE = np.zeros((58, 256), dtype=np.int64)
    budgets = [moves_within(seconds, load_LE) for seconds in (0.0, 0.05, 0.25, 60.0)]
    assert budgets == [QUICK * 256, QUICK * 256, LONG * 256, LONG * 256]


@pytest.mark.parametrize("traffic", ["copies", "dedup_gpu", "dedup_domain"])
@pytest.mark.parametrize("ep", [None, 2])
def test_every_traffic_mode_and_ep_set_gets_a_legal_even_plan(
    traffic: str, ep: int | None
) -> None:
    """Slots of one set, all covered, none twice; more even than contiguous."""
    problem = instance(
        [2, 2],
        experts=6,
        slots=4,
        traffic=traffic,
        selection="even",
        ep=ep,
        layers=2,
        tokens=4000,
    )
    result = solve(problem)
    assert result.plan.slots_LGJ.shape == (2, ep or 4, 4)
    assert result.bound is None
    assert not result.plan.has_duplicates()
    for slots_GJ in result.plan.slots_LGJ:
        assert set(slots_GJ.ravel().tolist()) == set(range(6))
    plain = repaired(problem, published_plan(problem, "contiguous"))
    parts = [
        evaluate(problem, plan, problem.planning).imbalance
        for plan in (result.plan, plain)
    ]
    assert parts[0].mean < parts[1].mean


def test_the_plan_comes_back_even_where_caps_are_missed() -> None:
    """What cannot be evened out is judged by others: 1 expert has nearly all."""
    counts = [[1000, 1, 1, 1]]
    problem = instance(
        [2, 2],
        experts=4,
        slots=1,
        counts=counts,
        objective="gpu_tokens",
        caps=Caps(gpu=1.05),
    )
    assert solve(problem).reason == "complete"


def counts_problem(
    counts: IntArray, slots: int, layers: str = "sequential", ep: int | None = None
) -> PlacementInstance:
    """Counts on 2 + 2 GPUs, the fullest GPU as the objective."""
    problem = instance(
        [2, 2],
        experts=counts.shape[1],
        slots=slots,
        traffic="copies",
        selection="even",
        layers=len(counts),
        counts=counts.tolist(),
        ep=ep,
    )
    return replace(problem, objective=Objective(name="gpu_tokens", layers=layers))


@pytest.mark.parametrize("mode", ["sequential", "worst_layer"])
@pytest.mark.parametrize(
    ("experts", "slots", "ep"), [(11, 3, None), (15, 4, None), (10, 5, 2)]
)
def test_bounds_are_proven_by_their_certificates(
    experts: int, slots: int, ep: int | None, mode: str
) -> None:
    """The verifier's checkers prove each layer's value; the objective is above."""
    problem = counts_problem(random_loads(12, experts) ** 2, slots, mode, ep)
    result = solve(problem)
    assert result.bound is not None
    proven = certified_layers(problem, result.bound)
    assert proven is not None
    for layer, exact in zip(result.bound.layers, proven, strict=True):
        assert layer.value == pytest.approx(float(exact), rel=1e-12)
    value = evaluate(problem, result.plan, problem.planning).value
    assert result.bound.value <= float(value) * (1 + 1e-12)
    assert {layer.method for layer in result.bound.layers} == {"count", "mean"}


def test_the_count_bound_is_the_best_greatest_load_per_copy() -> None:
    """9 and 1, 1, 1 on five slots: 9 in two copies, so no GPU below 4.5."""
    problem = instance(
        [5],
        experts=4,
        slots=1,
        selection="even",
        counts=[[9, 1, 1, 1]],
        objective="gpu_tokens",
    )
    result = solve(problem)
    assert result.bound is not None
    assert result.bound.layers[0].certificate == {"kind": "count", "level": "9/2"}
    value = evaluate(problem, result.plan, problem.planning).value
    assert value == Fraction(9, 2)


def test_no_bound_where_none_is_known() -> None:
    """Not for links, nor for tokens that a hash shares, nor for the pipelined sum."""
    counts = random_loads(2, 6)
    links = replace(counts_problem(counts, 2), objective=Objective(name="link_time"))
    tokens = instance([2, 2], experts=6, slots=2, objective="gpu_tokens")
    for problem in (links, tokens, counts_problem(counts, 2, "pipelined")):
        assert solve(problem).bound is None


def test_a_note_says_that_links_are_not_looked_at() -> None:
    """Where links are the objective the reader is told."""
    by_links = solve(instance([2, 2], experts=6, slots=2)).notes
    assert ["links" in note for note in by_links] == [True]
    assert solve(counts_problem(random_loads(1, 6), 2)).notes == ()


def test_fast_is_known_by_name() -> None:
    """The registry lists it among the others."""
    assert STRATEGIES.get("fast") is strategy.solve_fast
    with pytest.raises(UsageError, match="fast"):
        STRATEGIES.get("faster")


@pytest.mark.parametrize(("gpus", "slots"), [(256, 2), (144, 2), (32, 9), (72, 4)])
@pytest.mark.parametrize("workload", ["prefill_in1024", "decode_in2000out100"])
def test_recorded_layers_are_never_above_eplb(
    shared_data: Path, workload: str, gpus: int, slots: int
) -> None:
    """The small budget, every layer: below EPLB as published and as repaired."""
    file = TraceFile(shared_data / "traces/deepseek-r1_counts.parquet")
    load_LE = read_counts(file, workload).tokens_LE[::6]
    experts = load_LE.shape[1]
    found_LGJ = placed(load_LE, gpus, slots, moves=QUICK * experts, domains=4)
    eplb_LGJ = np.stack(
        [
            np.stack(pack_copies(load_E, gpus * slots, gpus))
            for load_E in load_LE.astype(np.float32)
        ]
    ).astype(np.int16)
    seen: Any = SimpleNamespace(
        planning=CountsPart(tokens_LE=load_LE, top_k=8),
        model=SimpleNamespace(experts=experts),
    )
    seen.views = (seen,)
    numbers = tuple(range(len(load_LE)))
    plan = PlacementPlan(layer_numbers=numbers, slots_LGJ=eplb_LGJ)
    for start_LGJ in (eplb_LGJ, repaired(seen, plan).slots_LGJ):
        for load_E, found_GJ, start_GJ in zip(
            load_LE, found_LGJ, start_LGJ, strict=True
        ):
            least = loads_of(load_E, start_GJ).max()
            assert loads_of(load_E, found_GJ).max() <= least * (1 + 1e-12)
