"""The compiled counter against the verifier's, which is written apart in NumPy."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import ManifestError, VerificationError
from planner.executor.counter import (
    Counting,
    compile_counter,
    count,
    count_stream,
    kernels,
    pieces,
    repeated,
)
from planner.executor.counter import counting as counting_module
from planner.executor.counter import sets as sets_module
from planner.layout import ParallelLayout
from planner.plan import PlacementPlan
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import both_legs, gpu_pairs, homeward
from planner.workload.homes import running_index
from planner.workload.parts import TokenPart
from tests.instances import model

MODES = ("copies", "dedup_gpu", "dedup_domain", "direct")
SELECTIONS = ("nearest", "even", "weighted")
KNUTH = 2654435769
ENDPOINTS = {
    "copies": ("local_nic", "pxn", "dest_forward"),
    "dedup_gpu": ("local_nic", "pxn", "dest_forward"),
    "dedup_domain": ("dest_forward",),
    "direct": ("local_nic",),
}
SPEC = model(layers=2, experts=9, top_k=3)
NAMES = ("dispatch_LGG", "combine_LGG", "gpu_pairs_LG", "slot_bytes_G")


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    """A small cluster, any domains, sets, groups and copies; tokens with nulls."""
    ep, sets = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    gpus, layers = ep * sets, draw(st.integers(1, 3))
    tp = draw(st.sampled_from([t for t in (1, 2, 3) if gpus % t == 0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    experts, places = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    places = max(places, -(-experts // ep))
    # Some ids are in no layer and chosen by no token.
    ids_E = np.sort(rng.choice(experts + 4, size=experts, replace=False))
    slots_LGJ = np.full((layers, ep * places), -1, dtype=np.int16)
    for row in slots_LGJ:
        held = rng.integers(experts, size=ep * places)
        held[: draw(st.integers(0, ep * places - experts))] = -1
        held[held.size - experts :] = np.arange(experts)
        row[:] = rng.permutation(np.where(held < 0, -1, ids_E[held]))
    tokens, top_k = draw(st.integers(0, 40)), draw(st.integers(1, 3))
    experts_LTK = rng.choice([-1, *ids_E], size=(layers, tokens, top_k))
    experts_LTK[:, rng.random(tokens) < 0.1] = -1
    groups = rng.permutation(gpus).reshape(-1, tp)
    rank_T = rng.integers(len(groups), size=tokens)
    split = {
        (layer, expert): {
            name: tuple((rng.integers(0, 5, size=copies) + np.eye(copies)[0]).tolist())
            for name in ("*", "0", str(len(groups) - 1), "99")
            if rng.random() < 0.5
        }
        for layer in range(layers)
        for expert in ids_E.tolist()
        if (copies := int((slots_LGJ[layer] == expert).sum())) and rng.random() < 0.7
    }
    traffic = draw(st.sampled_from(MODES))
    return {
        "plan": PlacementPlan(
            layer_numbers=tuple(range(layers)),
            slots_LGJ=slots_LGJ.reshape(layers, ep, places),
            split={
                key: {
                    name: tuple(int(weight) for weight in weights)
                    for name, weights in own.items()
                }
                for key, own in split.items()
            },
        ),
        "part": TokenPart(
            experts_LTK=experts_LTK.astype(np.int16),
            source_T=groups[rank_T, rng.integers(tp, size=tokens)].astype(np.int64),
            rank_T=rank_T.astype(np.int64),
            ordinal_T=rng.integers(2**20, size=tokens),
            row_T=np.arange(tokens),
        ),
        "layout": ParallelLayout(
            domain_G=rng.integers(draw(st.integers(1, 4)), size=gpus),
            ep=ep,
            attention_groups=tuple(tuple(group) for group in groups.tolist()),
        ),
        "traffic": traffic,
        "selection": draw(st.sampled_from(SELECTIONS)),
        "endpoint": draw(st.sampled_from(ENDPOINTS[traffic])),
    }


def by_witness(job: dict[str, Any]) -> dict[str, Any]:
    """Every count by the verifier's words, vectorised over tokens."""
    plan, part, layout = job["plan"], job["part"], job["layout"]
    gpus = layout.gpu_count
    found: dict[str, Any] = {"dispatch_LGG": [], "combine_LGG": [], "gpu_pairs_LG": []}
    stand_T = part.source_T
    for layer in range(len(plan.layer_numbers)):
        targets_TK = chosen_ranks(
            plan.slots_LGJ[layer],
            {e: own for (at, e), own in plan.split.items() if at == layer},
            job["selection"],
            part.experts_LTK[layer],
            stand_T,
            part.rank_T,
            part.ordinal_T,
            layout,
        )
        dispatch, combine, stand_T = both_legs(
            job["traffic"], job["endpoint"], targets_TK, stand_T, layout
        )
        found["dispatch_LGG"].append(dispatch.matrix())
        found["combine_LGG"].append(combine.matrix())
        found["gpu_pairs_LG"].append(gpu_pairs(targets_TK, gpus))
    if job["traffic"] == "direct":
        found["combine_LGG"][-1] += homeward(stand_T, part.source_T, gpus).matrix()
    return found


@settings(max_examples=400, deadline=None)
@given(jobs())
def test_the_counter_counts_as_the_verifier_does(job: dict[str, Any]) -> None:
    """Law: two programs of the same rules, one count for every GPU pair and layer."""
    moved, wanted = count(**job, model_spec=SPEC), by_witness(job)
    for name, value in wanted.items():
        assert np.array_equal(getattr(moved, name), np.stack(value)), name


@settings(max_examples=100, deadline=None)
@given(jobs(), st.integers(1, 20), st.booleans(), st.booleans())
def test_chunks_count_as_the_whole_does(
    job: dict[str, Any], size: int, held: bool, dense: bool
) -> None:
    """Law: where a stream is cut, and how counts are kept, changes nothing."""
    part = job.pop("part")
    whole = count(part=part, **job, model_spec=SPEC)
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setattr(counting_module, "HELD_CELLS", 0)
        if not dense:
            patch.setattr(sets_module, "DENSE_GPUS", 0)
        cut = count_stream(chunks=pieces(part, size), **job, model_spec=SPEC)
    for name in NAMES:
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name


@settings(max_examples=50, deadline=None)
@given(jobs(), st.integers(1, 4))
def test_a_part_repeated_counts_as_its_rows_written_out(
    job: dict[str, Any], times: int
) -> None:
    """Law: the repetitions of a file are the file with its rows written again."""
    part = job["part"]
    source_T = np.tile(part.source_T, times)
    job["part"] = part = replace(part, ordinal_T=running_index(part.source_T))
    written = TokenPart(
        experts_LTK=np.tile(part.experts_LTK, (1, times, 1)),
        source_T=source_T,
        rank_T=np.tile(part.rank_T, times),
        ordinal_T=running_index(source_T),
        row_T=np.arange(source_T.size),
    )
    chunks = list(repeated(part, times))
    rows = np.concatenate([chunk.row_T for chunk in chunks])
    assert np.array_equal(rows, written.row_T)
    moved = count_stream(
        chunks=chunks,
        **{name: value for name, value in job.items() if name != "part"},
        model_spec=SPEC,
    )
    for name, value in by_witness(job | {"part": written}).items():
        assert np.array_equal(getattr(moved, name), np.stack(value)), name


def small(**changes: Any) -> dict[str, Any]:
    """Two domains of two GPUs; expert e on GPU e, expert 0 on GPU 3 as well."""
    return {
        "plan": PlacementPlan(
            layer_numbers=(0,),
            slots_LGJ=np.array([[[0, -1], [1, -1], [2, -1], [3, 0]]], dtype=np.int16),
        ),
        "part": TokenPart(
            experts_LTK=np.array([[[2, 3], [0, 1], [-1, 2]]], dtype=np.int16),
            source_T=np.array([0, 1, 3]),
            rank_T=np.array([0, 1, 3]),
            ordinal_T=np.array([0, 0, 0]),
            row_T=np.arange(3),
        ),
        "layout": ParallelLayout(
            domain_G=np.array([0, 0, 1, 1]),
            ep=4,
            attention_groups=((0,), (1,), (2,), (3,)),
        ),
        "traffic": "dedup_domain",
        "selection": "nearest",
        "endpoint": "dest_forward",
        "model_spec": SPEC,
    } | changes


def test_three_tokens_counted_by_hand() -> None:
    """Law: token 0 goes to its relay 2 and on to 3; 1 sends to 0; 3 sends to 2."""
    moved = count(**small())
    pairs = {tuple(pair) for pair in np.argwhere(moved.dispatch_LGG[0]).tolist()}
    assert pairs == {(0, 2), (2, 3), (1, 0), (3, 2)}
    assert moved.dispatch_LGG.sum() == 4
    assert np.array_equal(moved.combine_LGG[0], moved.dispatch_LGG[0].T)
    assert moved.gpu_pairs_LG.tolist() == [[1, 1, 2, 1]]


def test_nothing_to_count_is_zero() -> None:
    """Law: no chunk, no transfer."""
    job = small()
    job.pop("part")
    moved = count_stream(chunks=[], **job)
    assert moved.dispatch_LGG.shape == (1, 4, 4)
    assert not moved.dispatch_LGG.any()
    assert not moved.gpu_pairs_LG.any()


@pytest.mark.parametrize("traffic", MODES)
@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("stray", [4, 32767])
def test_an_expert_without_a_copy_is_named(
    traffic: str, selection: str, stray: int
) -> None:
    """Law: a choice that no GPU serves ends the count, also beyond all known ids."""
    job = small(traffic=traffic, selection=selection, endpoint=ENDPOINTS[traffic][0])
    ids = job["part"].experts_LTK.copy()
    ids[0, 2, 1] = stray
    with pytest.raises(VerificationError, match=f"expert {stray} is used"):
        count(**job | {"part": replace(job["part"], experts_LTK=ids)})


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (-1, 2), (0, 0)])
def test_weights_that_break_the_rule_are_refused(weights: tuple[int, ...]) -> None:
    """Law: one weight per copy, none negative, not all 0."""
    job = small(selection="weighted")
    plan = replace(job["plan"], split={(0, 0): {"*": weights}})
    with pytest.raises(ManifestError, match="needs 2 weights"):
        count(**job | {"plan": plan})


@pytest.mark.parametrize(
    ("weights", "hashed", "copy"),
    [
        ((1, 2), 2**32 // 3, 0),
        ((1, 2), 2**32 // 3 + 1, 1),
        ((1, 1), 2**31 - 1, 0),
        ((1, 1), 2**31, 1),
        ((0, 1), 0, 1),
        ((1, 0), 2**32 - 1, 0),
    ],
)
def test_a_hash_at_the_border_of_two_copies(
    weights: tuple[int, ...], hashed: int, copy: int
) -> None:
    """Law: the first copy with u * W < 2^32 * (weights up to it), to the last u."""
    job = small(selection="weighted", traffic="copies", endpoint="local_nic")
    place = hashed * pow(KNUTH, -1, 2**32) % 2**32
    part = TokenPart(
        experts_LTK=np.zeros((1, 1, 1), dtype=np.int16),
        source_T=np.array([1]),
        rank_T=np.array([1]),
        ordinal_T=np.array([(place - 1) % 2**32]),
        row_T=np.zeros(1, dtype=np.int64),
    )
    plan = replace(job["plan"], split={(0, 0): {"*": weights}})
    moved = count(**job | {"plan": plan, "part": part})
    assert moved.gpu_pairs_LG[0].nonzero()[0].tolist() == [(0, 3)[copy]]


@pytest.mark.parametrize("word", ["traffic", "selection"])
def test_unknown_words_are_refused(word: str) -> None:
    """Law: no mode or selection is guessed."""
    with pytest.raises(ManifestError, match="must be"):
        count(**small(**{word: "other"}))


def test_a_cluster_of_thousands_keeps_only_pairs_that_count() -> None:
    """Law: beyond what fits in arrays of all pairs, counts are kept by pair."""
    gpus, experts = 4096, 64
    rng = np.random.default_rng(1)
    slots = np.full((1, gpus, 1), -1, dtype=np.int16)
    holders = rng.choice(gpus, size=experts, replace=False)
    slots[0, holders, 0] = np.arange(experts)
    part = small()["part"]
    source_T = rng.integers(gpus, size=500)
    part = TokenPart(
        experts_LTK=rng.integers(experts, size=(1, 500, 4)).astype(np.int16),
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.zeros(500, dtype=np.int64),
        row_T=np.arange(500),
    )
    layout = ParallelLayout(
        domain_G=np.arange(gpus) // 8,
        ep=gpus,
        attention_groups=tuple((gpu,) for gpu in range(gpus)),
    )
    plan = PlacementPlan(layer_numbers=(0,), slots_LGJ=slots)
    counting = Counting(
        plan, layout, traffic="copies", selection="nearest", endpoint="local_nic"
    )
    counting.add(part)
    (layer,) = counting.layers()
    target_x = holders[part.experts_LTK[0].astype(np.int64)].reshape(-1)
    source_x = np.repeat(source_T, 4)
    moves = source_x != target_x
    assert layer.dispatch.total == moves.sum()
    assert set(zip(layer.dispatch.source_n, layer.dispatch.target_n, strict=True)) == (
        set(zip(source_x[moves], target_x[moves], strict=True))
    )


def test_what_is_compiled_ahead_is_what_counts() -> None:
    """Law: a replay compiles nothing that ``compile_counter`` has not compiled."""
    compile_counter()
    passes = [each for each in vars(kernels).values() if hasattr(each, "signatures")]
    before = [list(each.signatures) for each in passes]
    for selection in SELECTIONS:
        for traffic in MODES:
            job = small(
                traffic=traffic, selection=selection, endpoint=ENDPOINTS[traffic][0]
            )
            locked = job["part"].experts_LTK.copy()
            locked.flags.writeable = False
            count(**job | {"part": replace(job["part"], experts_LTK=locked)})
    assert [list(each.signatures) for each in passes] == before
    assert all(len(each) <= 1 for each in before)
