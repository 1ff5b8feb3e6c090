"""Sequences drawn anew: what the network of several draws says, and who may come."""

from dataclasses import replace

import numpy as np
import pytest

from planner.evaluator import layer_loads, layer_value
from planner.instance import Caps, PlacementInstance
from planner.strategies.base import STRATEGIES, Limits
from planner.strategies.baselines.base import published_plan, repaired
from planner.strategies.judging import judged_layer
from planner.strategies.search.anneal import anneal, peak_value
from planner.strategies.search.guide import guide_of
from planner.strategies.search.layer import BALANCE, DOUBLINGS, Knobs, served_state
from planner.strategies.search.pairs import excess_of
from planner.strategies.search.resampling import (
    MOST_DRAWN,
    SEED,
    Sequences,
    resampled,
    stays_together,
)
from planner.strategies.search.serving import split_of
from planner.strategies.search.tokens import tokens_of
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from tests.instances import instance

CASES = [
    ([2, 2], "dedup_domain", "nearest", 2, 1, None),
    ([2, 2], "dedup_domain", "weighted", 3, 1, None),
    ([2, 2], "dedup_domain", "even", 3, 1, None),
    ([2, 2], "dedup_gpu", "weighted", 3, 2, None),
    ([2, 2], "dedup_gpu", "even", 2, 2, None),
    ([1, 1, 1, 1], "dedup_domain", "weighted", 3, 1, 2),
]


def with_sequences(
    problem: PlacementInstance, *, tp: int = 1, tags: int = 2, count: int = 14
) -> PlacementInstance:
    """Put tokens in sequences of unequal length, tags on consecutive DP ranks."""
    part, gpus = problem.planning, problem.layout.gpu_count
    assert isinstance(part, TokenPart)
    rng = np.random.default_rng(5)
    share_Q = rng.dirichlet(np.full(count, 0.7))
    sequence_T = np.sort(rng.choice(count, part.token_count, p=share_Q))
    dp = gpus // tp
    tag_Q = np.arange(count) % tags
    rank_Q = tag_Q * dp // tags + np.arange(count) // tags % max(1, dp // tags)
    rank_T = rank_Q[sequence_T]
    source_T = rank_T * tp + running_index(rank_T) % tp
    part = replace(
        part,
        rank_T=rank_T,
        source_T=source_T,
        ordinal_T=running_index(source_T),
        sequence_T=sequence_T * 3,
        tag_T=tag_Q[sequence_T],
    )
    groups = tuple(tuple(range(r * tp, r * tp + tp)) for r in range(dp))
    (workload,) = problem.workloads
    return replace(
        problem,
        layout=replace(problem.layout, attention_groups=groups),
        workloads=(replace(workload, planning=part),),
        unseen=True,
    )


def problem_of_case(case: tuple[object, ...], **more: object) -> PlacementInstance:
    """Return the instance of a row of ``CASES``; NVLink is too fast to matter.

    It would where a class stands for all GPUs of a domain, of which only some hold a
    copy themselves.
    """
    domains, traffic, selection, slots, tp, ep = case
    problem = instance(
        domains,  # type: ignore[arg-type]
        experts=8 if ep is None else 5,
        slots=slots,  # type: ignore[arg-type]
        traffic=traffic,  # type: ignore[arg-type]
        selection=selection,  # type: ignore[arg-type]
        ep=ep,  # type: ignore[arg-type]
        nic=[50.0, 30.0, 40.0, 60.0][: len(domains)],  # type: ignore[arg-type]
        nvlink=1e6,
        **more,  # type: ignore[arg-type]
    )
    return with_sequences(problem, tp=tp)  # type: ignore[arg-type]


def drawn_parts(problem: PlacementInstance) -> list[TokenPart]:
    """Return the tokens of every draw, written out one after the other."""
    part = problem.planning
    assert isinstance(part, TokenPart)
    assert part.sequence_T is not None and part.tag_T is not None
    network, sample = resampled(problem, part)
    sequences, random = Sequences(problem, part), np.random.default_rng(SEED)
    parts = []
    for _ in range(network.draws):
        picked, source = [], []
        for kind, gpu in zip(*sequences.drawn(random), strict=True):
            tokens = sample.index_T[sample.class_T == kind]
            picked += tokens.tolist()
            source += [int(gpu)] * tokens.size
        parts.append(
            replace(
                part,
                experts_LTK=part.experts_LTK[:, picked],
                source_T=np.asarray(source),
                rank_T=np.asarray(source) // problem.layout.tp,
                ordinal_T=part.ordinal_T[picked],
                row_T=part.row_T[picked],
                sequence_T=part.sequence_T[picked],
                tag_T=part.tag_T[picked],
            )
        )
    return parts


@pytest.mark.parametrize("case", CASES)
def test_the_network_says_the_mean_of_what_the_evaluator_says_of_every_draw(
    case: tuple[object, ...],
) -> None:
    """Value, and pairs per domain, draw by draw, after hundreds of moves."""
    problem = problem_of_case(case)
    guide = guide_of(problem)
    assert guide is not None and guide.last
    network, tokens = guide.network, tokens_of(problem, 0, 4, guide.sample)
    start = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]
    state = served_state(network, tokens, start)
    best = (start.astype(np.int16).copy(), state.choice_EH.copy(), np.inf, 0.0)
    random_1 = np.asarray([7], dtype=np.uint64)
    knobs = Knobs(400, 0.5, DOUBLINGS, BALANCE, False)
    anneal(network, tokens, state, best, knobs, random_1)
    assert (state.slots_GJ != start).any()
    split = split_of(network.homes, problem.layout, state.slots_GJ, state.choice_EH)
    parts, gpus = drawn_parts(problem), problem.layout.gpu_count
    values = [layer_value(problem, one, 0, state.slots_GJ, split) for one in parts]
    seen_G = state.pairs_G[:gpus]
    found = peak_value(network, state.load_X, seen_G)
    assert found == pytest.approx(float(sum(values)) / len(values), rel=1e-9)
    assert len({float(value) for value in values}) > 1
    for draw, one in enumerate(
        [problem.planning, *parts][: state.pairs_G.size // gpus]
    ):
        pairs_G = layer_loads(problem, one, 0, state.slots_GJ, split).pairs_G
        kept_G = state.pairs_G[draw * gpus : (draw + 1) * gpus]
        for domain in problem.topology.domains:
            here = list(domain)
            assert kept_G[here].sum() == pytest.approx(pairs_G[here].sum())


def test_a_draw_has_whole_sequences_of_every_tag_on_ranks_of_that_tag() -> None:
    """As many of a tag as seen, each whole each time, and not always the same."""
    problem = with_sequences(instance([2, 2], experts=8, slots=2, tokens=300))
    seen = problem.planning
    assert isinstance(seen, TokenPart)
    assert seen.sequence_T is not None and seen.tag_T is not None
    size_Q = np.bincount(seen.sequence_T)
    counts_of_tag = [
        np.unique(seen.sequence_T[seen.tag_T == tag]).size for tag in range(2)
    ]
    came = []
    for part in drawn_parts(problem):
        assert part.sequence_T is not None and part.tag_T is not None
        drawn_Q = np.bincount(part.sequence_T, minlength=size_Q.size)
        times_Q = drawn_Q[size_Q > 0] / size_Q[size_Q > 0]
        assert (times_Q == np.round(times_Q)).all()
        tag_Q = np.flatnonzero(size_Q) // 3 % 2
        assert [times_Q[tag_Q == tag].sum() for tag in range(2)] == counts_of_tag
        assert set(part.source_T[part.tag_T == 0].tolist()) <= {0, 1}
        assert set(part.source_T[part.tag_T == 1].tolist()) <= {2, 3}
        came.append(tuple(times_Q))
    assert len(set(came)) > len(came) // 2
    assert max(max(times) for times in came) >= 2


def test_tokens_of_a_rank_keep_their_place_in_it() -> None:
    """With two GPUs per DP rank a token comes back on the same one of another rank."""
    problem = with_sequences(instance([2, 2], experts=8, slots=2), tp=2, tags=1)
    seen = problem.planning
    assert isinstance(seen, TokenPart)
    place_T = seen.source_T % 2
    for part in drawn_parts(problem):
        assert (part.source_T % 2 == place_T[part.row_T]).all()
        assert len(set((part.source_T // 2).tolist())) == 2


def test_sequences_are_drawn_only_where_they_stay_together_and_are_few() -> None:
    """Tokens dealt out in turn, unknown sequences and too many are mixed instead."""
    problem = with_sequences(instance([2, 2], experts=8, slots=2))
    part = problem.planning
    assert isinstance(part, TokenPart)
    assert stays_together(part)
    apart = replace(part, rank_T=np.arange(part.token_count) % 4)
    assert not stays_together(apart)
    assert not stays_together(replace(part, sequence_T=None))
    many = instance([2, 2], experts=8, slots=2, tokens=MOST_DRAWN).planning
    assert isinstance(many, TokenPart)
    alone = replace(many, sequence_T=np.arange(many.token_count))
    assert not stays_together(alone)
    (workload,) = problem.workloads
    unknown = replace(workload, planning=replace(part, sequence_T=None))
    guide = guide_of(replace(problem, workloads=(unknown,)))
    assert guide is not None and not guide.last


def test_caps_bind_on_the_tokens_seen_and_draws_weigh_what_they_exceed() -> None:
    """Pairs above a cap: all of them where seen, a mean share of all where drawn."""
    cap = Caps(domain=1.05)
    problem = problem_of_case(CASES[2], caps=cap)
    guide = guide_of(problem)
    assert guide is not None
    tokens = tokens_of(problem, 0, 4, guide.sample)
    start = repaired(problem, published_plan(problem, "contiguous")).slots_LGJ[0]
    state = served_state(guide.network, tokens, start)
    excess, margin = excess_of(state.pairs_G, state.pairs_M, tokens.pairs.caps)
    above, pairs = [], 0
    for part in [problem.planning, *drawn_parts(problem)[:16]]:
        pairs_G = layer_loads(problem, part, 0, start, {}).pairs_G
        most = int(1.05 * int(pairs_G.sum()) * 2 / 4)
        above.append(
            sum(max(0, int(pairs_G[at : at + 2].sum()) - most) for at in (0, 2))
        )
        pairs = pairs or int(pairs_G.sum())
    assert excess == above[0]
    assert margin == pytest.approx(4.0 * sum(above[1:]) / 16 / pairs)
    assert sum(above[1:]) > 0


def test_what_is_returned_keeps_the_caps_of_the_tokens_seen() -> None:
    """The search that follows draws ends within the caps, from a start beyond them."""
    problem = with_sequences(
        instance([2, 2], experts=16, slots=4, tokens=800, caps=Caps(domain=1.1))
    )
    start = published_plan(problem, "contiguous")
    assert judged_layer(problem, 0, start.slots_LGJ[0], {})[1] > 0
    result = STRATEGIES.get("search")(problem, Limits(seconds=2.0, threads=1), [start])
    assert judged_layer(problem, 0, result.plan.slots_LGJ[0], {})[1] == 0


def test_the_less_time_a_layer_has_the_fewer_draws_are_followed() -> None:
    """Every draw makes moves slower: 8 at least, 64 at most, 14 per second between."""
    problem = with_sequences(instance([2, 2], experts=8, slots=2))
    part = problem.planning
    assert isinstance(part, TokenPart)
    draws = [resampled(problem, part, s)[0].draws for s in (0.0, 0.5, 2.0, 100.0)]
    assert draws == [8, 8, 28, 64]
