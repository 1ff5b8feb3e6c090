"""Laws of transfers on random small clusters, against a plain walk per token."""

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.layout import ParallelLayout
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import gpu_pairs, transfer_counts


@st.composite
def cases(draw):
    """A cluster of one or two EP sets, a covered plan and some tokens."""
    ep, sets = draw(st.integers(2, 5)), draw(st.integers(1, 2))
    gpus = ep * sets
    domains = draw(st.lists(st.integers(0, 2), min_size=gpus, max_size=gpus))
    experts = draw(st.integers(1, 6))
    extra = draw(st.integers(0, 2))
    per_gpu = min(experts, -(-experts // ep) + extra)
    order = draw(st.permutations(range(experts)))
    slots = [
        [order[(rank * per_gpu + at) % experts] for at in range(per_gpu)]
        for rank in range(ep)
    ]
    tokens, top_k = draw(st.integers(1, 12)), draw(st.integers(1, min(3, experts)))
    chosen = [draw(st.permutations(range(experts)))[:top_k] for _ in range(tokens)]
    source = draw(st.lists(st.integers(0, gpus - 1), min_size=tokens, max_size=tokens))
    ordinal = [source[:at].count(gpu) for at, gpu in enumerate(source)]
    layout = ParallelLayout(
        domain_G=np.asarray(domains, dtype=np.int64),
        ep=ep,
        attention_groups=tuple((gpu,) for gpu in range(gpus)),
    )
    source_T = np.asarray(source, dtype=np.int64)
    targets_TK = chosen_ranks(
        np.asarray(slots, dtype=np.int16),
        {
            order[0]: {
                "*": tuple(range(1, 1 + sum(row.count(order[0]) for row in slots)))
            }
        },
        draw(st.sampled_from(["nearest", "even", "weighted"])),
        np.asarray(chosen, dtype=np.int16),
        source_T,
        source_T,
        np.asarray(ordinal, dtype=np.int64),
        layout,
    )
    return layout, slots, np.asarray(chosen), source_T, targets_TK


def walk(mode, endpoint, layout, source, targets):
    """Transfers of one token, step by step as rule 20 tells them."""
    domain = layout.domain_G
    block = range(
        source // layout.ep * layout.ep, (source // layout.ep + 1) * layout.ep
    )
    mates = [gpu for gpu in block if domain[gpu] == domain[source]]
    moves = []
    if mode == "dedup_domain":
        for place in {int(domain[target]) for target in targets}:
            there = [gpu for gpu in block if domain[gpu] == place]
            start = source
            if place != domain[source]:
                start = there[mates.index(source) % len(there)]
                moves.append((source, start))
            wanted = {target for target in targets if domain[target] == place}
            moves += [(start, target) for target in wanted if target != start]
        return moves
    for target in targets if mode == "copies" else set(targets):
        stops = [source, target]
        if endpoint == "dest_forward" and domain[target] != domain[source]:
            there = [gpu for gpu in block if domain[gpu] == domain[target]]
            stops.insert(1, there[mates.index(source) % len(there)])
        if endpoint == "pxn" and domain[target] != domain[source]:
            there = [gpu for gpu in block if domain[gpu] == domain[target]]
            stops.insert(1, mates[there.index(target) % len(mates)])
        moves += [(a, b) for a, b in itertools.pairwise(stops) if a != b]
    return moves


def counted(mode, case, endpoint="local_nic"):
    """Transfers of the whole case by the witness."""
    layout, _, _, source_T, targets_TK = case
    return transfer_counts(mode, endpoint, targets_TK, source_T, layout).matrix()


@settings(max_examples=150, deadline=None)
@given(
    cases(),
    st.sampled_from(["copies", "dedup_gpu", "dedup_domain"]),
    st.sampled_from(["local_nic", "pxn", "dest_forward"]),
)
def test_every_transfer_is_one_step_of_some_token(case, mode, endpoint) -> None:
    """Law: the matrix is the sum of the tokens' own walks."""
    layout, _, _, source_T, targets_TK = case
    steps = Counter(
        step
        for source, targets in zip(source_T.tolist(), targets_TK.tolist(), strict=True)
        for step in walk(mode, endpoint, layout, source, targets)
    )
    found = counted(mode, case, endpoint)
    cells = {(int(s), int(d)): int(found[s, d]) for s, d in np.argwhere(found)}
    assert cells == dict(steps)


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_pair_is_served_inside_its_set_by_a_gpu_that_holds_it(case) -> None:
    """Law: the serving GPU is of the source's EP set and has the expert."""
    layout, slots, chosen, source_T, targets_TK = case
    for source, experts, targets in zip(source_T, chosen, targets_TK, strict=True):
        for expert, target in zip(experts, targets, strict=True):
            assert target // layout.ep == source // layout.ep
            assert expert in slots[target % layout.ep]


@settings(max_examples=100, deadline=None)
@given(cases())
def test_messages_are_conserved_and_merging_only_removes_them(case) -> None:
    """Law: copies + local = pairs; dedup_gpu <= copies; one hop per far domain."""
    layout, _, _, source_T, targets_TK = case
    local = int((targets_TK == source_T[:, None]).sum())
    pairs = gpu_pairs(targets_TK, layout.gpu_count)
    assert pairs.sum() == targets_TK.size
    copies, gpu, domain = (
        counted(mode, case) for mode in ("copies", "dedup_gpu", "dedup_domain")
    )
    assert copies.sum() + local == targets_TK.size
    assert (gpu <= copies).all()
    assert np.trace(copies) == np.trace(gpu) == np.trace(domain) == 0
    far = layout.domain_G[:, None] != layout.domain_G[None, :]
    remote = sum(
        len({int(layout.domain_G[target]) for target in targets})
        - int(layout.domain_G[source] in layout.domain_G[targets])
        for source, targets in zip(source_T, targets_TK, strict=True)
    )
    assert domain[far].sum() == remote
    assert domain[far].sum() <= gpu[far].sum()
