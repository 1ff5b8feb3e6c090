"""Which copy serves which homes, where the plan decides it (selection ``weighted``).

Weights are given by DP rank (rule 19), so each may send all of its tokens to one copy,
to the one beside the other experts that its tokens choose. GPUs of a DP rank, or for
``dedup_domain`` of a domain, choose together: they are a *home class*. A class that
has copies in its own domain is served by one of those, and a GPU by its own copy where
it is a DP rank by itself.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.instance import PlacementInstance
from planner.layout import ParallelLayout
from planner.plan import SplitWeights
from planner.strategies.search.compiling import inlined
from planner.traffic.base import TRAFFIC

NOBODY = -1


class Homes(NamedTuple):
    """Home class of each GPU, and of each class its domain and first GPU of its set.

    ``own`` says that a GPU with a copy serves itself.
    """

    class_G: IntArray
    domain_H: IntArray
    base_H: IntArray
    own: bool


NO_HOMES = Homes(
    class_G=np.zeros(0, dtype=np.int64),
    domain_H=np.zeros(0, dtype=np.int64),
    base_H=np.zeros(0, dtype=np.int64),
    own=False,
)
"""Where a rule decides which copy serves a token."""


def homes_of(instance: PlacementInstance) -> Homes:
    """Return the home classes of an instance whose plan decides who serves them.

    It does under ``weighted`` where transfers of a token are merged: shares that are
    fractions would only part experts that could be met in one place.
    """
    layout = instance.layout
    merged = not all(TRAFFIC.get(view.traffic).linear for view in instance.views)
    weighed = instance.selection == "weighted" and instance.objective.name != (
        "gpu_tokens"
    )
    if not (merged and has_spare(instance) and weighed):
        return NO_HOMES
    # Sets number their copies alike, but a rank has one choice for all of its GPUs.
    if any(len({*layout.set_G[list(g)]}) > 1 for g in layout.attention_groups):
        return NO_HOMES
    by_domain = all(view.traffic == "dedup_domain" for view in instance.views)
    key_G = layout.set_G * layout.gpu_count
    key_G = key_G + (layout.domain_G if by_domain else dp_ranks(layout))
    _, first_H, class_G = np.unique(key_G, return_index=True, return_inverse=True)
    return Homes(
        class_G=class_G.astype(np.int64),
        domain_H=layout.domain_G[first_H].astype(np.int64),
        base_H=(layout.set_G[first_H] * layout.ep).astype(np.int64),
        own=layout.tp == 1,
    )


def sources_decide(instance: PlacementInstance, homes: Homes) -> bool:
    """Whether who serves a token depends on its source alone, not on a hash."""
    return instance.selection == "nearest" or homes.domain_H.size > 0


def has_spare(instance: PlacementInstance) -> bool:
    """Whether some experts have several copies."""
    return instance.slot_count > instance.model.experts


def served_alike(instance: PlacementInstance) -> IntArray:
    """Return numbers that GPUs share whose tokens are served by the same copies."""
    layout = instance.layout
    gpus, chosen = layout.gpu_count, homes_of(instance).domain_H.size > 0
    key_G = layout.set_G.astype(np.int64)
    if has_spare(instance) and (chosen or instance.selection == "nearest"):
        key_G = np.arange(gpus)
        if instance.traffic == "dedup_domain":
            key_G = layout.set_G * gpus + layout.domain_G
            if not chosen:
                key_G = 2 * key_G + np.arange(gpus) % 2
    return np.unique(key_G, return_inverse=True)[1].astype(np.int64)


def dp_ranks(layout: ParallelLayout) -> IntArray:
    """Return the DP rank of each GPU; S for those that are in no group."""
    rank_G = np.full(layout.gpu_count, layout.dp, dtype=np.int64)
    for rank, group in enumerate(layout.attention_groups):
        rank_G[list(group)] = rank
    return rank_G


def choice_of(
    homes: Homes,
    layout: ParallelLayout,
    slots_GJ: IdArray,
    split: Mapping[int, SplitWeights],
    experts: int,
) -> IntArray:
    """Return the EP rank that serves most of each class, [E, H]; -1 if none does."""
    choice_EH = np.full((experts, homes.domain_H.size), NOBODY, dtype=np.int64)
    for expert, weights in split.items():
        ranks = np.flatnonzero((slots_GJ == expert).any(axis=1))
        total_HM = np.zeros((homes.domain_H.size, ranks.size))
        for rank, group in enumerate(layout.attention_groups):
            given = weights.get(str(rank), weights.get("*"))
            if given is not None and not (homes.own and group[0] % layout.ep in ranks):
                total_HM[homes.class_G[group[0]]] += np.asarray(given) / sum(given)
        known_H = total_HM.sum(axis=1) > 0
        choice_EH[expert, known_H] = ranks[total_HM[known_H].argmax(axis=1)]
    return choice_EH


def split_of(
    homes: Homes, layout: ParallelLayout, slots_GJ: IdArray, choice_EH: IntArray
) -> dict[int, SplitWeights]:
    """Return the weights by which every DP rank sends all to the copy that serves it.

    ``*`` stands for the copy that serves most ranks.
    """
    split: dict[int, SplitWeights] = {}
    for expert in range(choice_EH.shape[0] if homes.domain_H.size else 0):
        ranks = np.flatnonzero((slots_GJ == expert).any(axis=1)).tolist()
        if len(ranks) < 2:
            continue
        copy_S = []
        for group in layout.attention_groups:
            own = homes.own and group[0] % layout.ep in ranks
            server = choice_EH[expert, homes.class_G[group[0]]]
            copy_S.append(ranks.index(group[0] % layout.ep if own else int(server)))
        ((common, _),) = Counter(copy_S).most_common(1)
        one_hot = [tuple(int(m == n) for m in range(len(ranks))) for n in copy_S]
        split[expert] = {
            "*": tuple(int(m == common) for m in range(len(ranks))),
            **{str(s): one_hot[s] for s, n in enumerate(copy_S) if n != common},
        }
    return split


@inlined  # type: ignore[untyped-decorator]
def settle(network: Any, ranks: Any, expert: int, here: int, home: int) -> int:
    """Return who serves a home class: ``here`` if that may be, else another copy."""
    homes, domain_G = network.homes, network.domain_G
    base, domain = homes.base_H[home], homes.domain_H[home]
    local = NOBODY
    for rank in ranks:
        if domain_G[base + rank] == domain:
            if rank == here:
                return here
            if local == NOBODY:
                local = rank
    if local != NOBODY:
        return local
    return here if here != NOBODY else ranks[(home + expert) % ranks.size]


@inlined  # type: ignore[untyped-decorator]
def follow(network: Any, state: Any, expert: int, side: int, ranks_2: Any) -> None:
    """Write who serves after a copy leaves a rank and comes to one (-1: none).

    Classes follow the copy that served them.
    """
    leaving, coming = ranks_2
    row = 2 * side
    ranks = state.rank_4M[row + 1, : state.count_4[row + 1]]
    alone = state.count_4[row] == 1
    for home in range(state.choice_2H.shape[1]):
        here = state.rank_4M[row, 0] if alone else state.choice_EH[expert, home]
        here = coming if here == leaving else here
        state.choice_2H[side, home] = settle(network, ranks, expert, here, home)


@inlined  # type: ignore[untyped-decorator]
def begin_choice(network: Any, state: Any, expert: int) -> None:
    """Settle who serves every home class of an expert whose copies are listed."""
    ranks = state.rank_EM[expert, : state.count_E[expert]]
    for home in range(state.choice_EH.shape[1]):
        here = NOBODY
        for rank in ranks:
            if rank == state.choice_EH[expert, home]:
                here = rank
        state.choice_EH[expert, home] = settle(network, ranks, expert, here, home)


@inlined  # type: ignore[untyped-decorator]
def chosen_ranks(network: Any, ranks: Any, choice_H: Any, near_S: Any) -> None:
    """Write the EP rank that serves an expert for every source GPU."""
    homes, ep = network.homes, network.ep
    if ranks.size == 1:
        near_S[:] = ranks[0]
        return
    for gpu in range(near_S.size):
        near_S[gpu] = choice_H[homes.class_G[gpu]]
    if homes.own:
        for base in range(0, near_S.size, ep):
            for rank in ranks:
                near_S[base + rank] = rank


@inlined  # type: ignore[untyped-decorator]
def may_serve(network: Any, state: Any, expert: int, rank: int, home: int) -> bool:
    """Whether a copy may serve a class that another copy serves now, to some effect."""
    homes, domain_G = network.homes, network.domain_G
    base, domain = homes.base_H[home], homes.domain_H[home]
    here = state.choice_EH[expert, home]
    if here == rank:
        return False
    cell = network.cell_CR[base // network.ep]
    if network.cells_only and cell[here] == cell[rank]:
        return False
    return bool(domain_G[base + rank] == domain or domain_G[base + here] != domain)
