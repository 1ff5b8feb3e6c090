"""The traffic model and the witness count alike, whatever the plan.

Both were written from rules 16-20 apart and share no code: on random clusters,
plans with copies, EP sets and tokens with gaps they must agree entry by entry.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.layout import ParallelLayout
from planner.plan import SplitWeights
from planner.traffic.base import TRAFFIC
from planner.traffic.direct import home_transfers, merge_gpus, merge_transfers
from planner.traffic.selection import chosen_targets
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import both_legs, homeward, transfer_counts
from planner.workload.parts import TokenPart

EXPERTS = 6


@dataclass(frozen=True)
class Case:
    layout: ParallelLayout
    slots_GJ: np.ndarray
    split: dict[int, SplitWeights]
    part: TokenPart


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    domain_G = np.repeat(np.arange(len(sizes)), sizes)
    if draw(st.booleans()):
        domain_G = np.tile(domain_G, 2) + np.repeat([0, len(sizes)], domain_G.size)
    gpus = domain_G.size
    ep = draw(st.sampled_from([n for n in range(1, gpus + 1) if gpus % n == 0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    layout = ParallelLayout(
        domain_G=domain_G, ep=ep, attention_groups=tuple((g,) for g in range(gpus))
    )
    slots_GJ = _slots(rng, ep)
    tokens = draw(st.integers(0, 40))
    source_T = rng.integers(0, gpus, tokens)
    part = TokenPart(
        experts_LTK=_choices(rng, tokens)[None],
        source_T=source_T,
        rank_T=source_T,
        ordinal_T=np.asarray(
            [int((source_T[:i] == s).sum()) for i, s in enumerate(source_T)],
            dtype=np.int64,
        ),
        row_T=np.arange(tokens),
    )
    split = {}
    for expert in range(EXPERTS):
        copies = int((slots_GJ == expert).sum())
        if rng.random() < 0.5:
            weights = rng.integers(0, 5, copies)
            weights[rng.integers(copies)] += 1
            key = "*" if rng.random() < 0.5 else str(rng.integers(gpus))
            split[expert] = {key: tuple(int(w) for w in weights)}
    return Case(layout=layout, slots_GJ=slots_GJ, split=split, part=part)


def _slots(rng: np.random.Generator, ep: int) -> np.ndarray:
    """Every expert somewhere, the rest at random without repetition on a GPU."""
    width = -(-EXPERTS // ep) + int(rng.integers(0, 2))
    width = min(width, EXPERTS)
    rows: list[list[int]] = [[] for _ in range(ep)]
    for position, expert in enumerate(rng.permutation(EXPERTS)):
        rows[position % ep].append(int(expert))
    for row in rows:
        others = [e for e in rng.permutation(EXPERTS) if e not in row]
        row.extend(int(e) for e in others[: width - len(row)])
    return np.asarray(rows, dtype=np.int16)


def _choices(rng: np.random.Generator, tokens: int) -> np.ndarray:
    chosen = np.asarray(
        [rng.permutation(EXPERTS)[:3] for _ in range(tokens)], dtype=np.int16
    ).reshape(tokens, 3)
    return np.where(rng.random((tokens, 3)) < 0.1, np.int16(-1), chosen)


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_copies_and_transfers_agree(selection: str, case: Case) -> None:
    """Same copy for every token, same transfers for every GPU pair."""
    part, layout = case.part, case.layout
    targets_TK = chosen_targets(
        part,
        0,
        case.slots_GJ,
        case.split,
        selection=selection,
        layout=layout,
        experts=EXPERTS,
    )
    again_TK = chosen_ranks(
        case.slots_GJ,
        case.split,
        selection,
        part.experts_LTK[0],
        part.source_T,
        part.rank_T,
        part.ordinal_T,
        layout,
    )
    assert targets_TK.tolist() == again_TK.tolist()
    for mode in TRAFFIC.names():
        for endpoint in TRAFFIC.get(mode).endpoints:
            counted = TRAFFIC.get(mode).count(
                targets_TK, part.source_T, layout, endpoint
            )
            witnessed = transfer_counts(mode, endpoint, again_TK, part.source_T, layout)
            assert counted.matrix().tolist() == witnessed.matrix().tolist(), (
                mode,
                endpoint,
            )


@pytest.mark.parametrize("selection", ["nearest", "even", "weighted"])
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_tokens_of_direct_walk_alike(selection: str, case: Case) -> None:
    """Two layers of ``direct``: same legs, same places after each, same way home."""
    layout, gpus = case.layout, case.layout.gpu_count
    slots_GJ = np.roll(case.slots_GJ, 1, axis=0)
    chosen_TK = np.roll(case.part.experts_LTK[0], 1, axis=0)
    walked_T, stand_T = case.part.source_T, case.part.source_T
    for slots, ids_TK in (
        (case.slots_GJ, case.part.experts_LTK[0]),
        (slots_GJ, chosen_TK),
    ):
        part = replace(case.part, experts_LTK=ids_TK[None], source_T=walked_T)
        targets_TK = chosen_targets(
            part, 0, slots, {}, selection=selection, layout=layout, experts=EXPERTS
        )
        sent = TRAFFIC.get("direct").count(targets_TK, walked_T, layout, "local_nic")
        walked_T = merge_gpus(targets_TK, walked_T)
        back = merge_transfers(targets_TK, walked_T, gpus)
        again_TK = chosen_ranks(
            slots,
            {},
            selection,
            ids_TK,
            stand_T,
            part.rank_T,
            part.ordinal_T,
            layout,
        )
        dispatch, combine, stand_T = both_legs(
            "direct", "local_nic", again_TK, stand_T, layout
        )
        assert sent.matrix().tolist() == dispatch.matrix().tolist()
        assert back.matrix().tolist() == combine.matrix().tolist()
        assert walked_T.tolist() == stand_T.tolist()
    home_T = case.part.source_T
    assert (
        home_transfers(walked_T, home_T, gpus).matrix().tolist()
        == homeward(stand_T, home_T, gpus).matrix().tolist()
    )
