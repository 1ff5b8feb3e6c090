"""(b) Homes correlated with experts: experts where the tokens that want them are."""

from dataclasses import replace
from math import sqrt

import numpy as np

from planner.explain.effects.base import (
    EFFECTS,
    Effect,
    EffectRule,
    Room,
    Switch,
    demand_NE,
)
from planner.instance import PlacementInstance
from planner.options import SolveOptions
from planner.pair_counts import PairCounts
from planner.workload.homes import running_index
from planner.workload.parts import CountsPart, TokenPart

CORRELATION_SIGMAS = 5.0
"""Excess of χ² over its mean, in standard deviations, that counts as correlated."""
NAME = "homes correlated with experts"
SHUFFLE_SEED = 0


def _seen(instance: PlacementInstance) -> Effect:
    part = instance.planning
    if isinstance(part, CountsPart):
        because = "a counts table has uniform homes"
        return Effect(name=NAME, applies=False, because=because)
    sigmas = max(
        _chi_square_sigmas(_demand(part, layer))
        for layer in range(instance.layer_count)
    )
    applies = sigmas > CORRELATION_SIGMAS
    word = "depend" if applies else "do not depend"
    because = f"homes {word} on experts: χ² at most {sigmas:+.1f}σ from chance"
    return Effect(name=NAME, applies=applies, because=because)


def _room(instance: PlacementInstance) -> Room | None:
    """Put every expert where most of its tokens are: no more can be had singly."""
    part = instance.planning
    if not isinstance(part, TokenPart) or len(instance.topology.domains) < 2:
        return None
    best, total, chance = 0.0, 0.0, 0.0
    for layer in range(instance.layer_count):
        demand = demand_NE(part, layer, instance)
        best += float(demand.max(axis=0).sum())
        total += float(demand.sum())
        chance += float(demand.mean(axis=0).sum())
    if not total:
        return None
    return Room(
        by_chance=chance / total,
        at_most=best / total,
        says=f"without copies at most {best / total:.1%} of the pairs can be served in "
        f"their home domain, {chance / total:.1%} by chance",
    )


def _blind(instance: PlacementInstance) -> PlacementInstance:
    """Plan for tokens that swapped homes at random; every home keeps its number."""
    return replace(
        instance,
        workloads=tuple(
            replace(each, planning=shuffled(each.planning))
            if isinstance(each.planning, TokenPart)
            else each
            for each in instance.workloads
        ),
    )


def _switched(instance: PlacementInstance, options: SolveOptions) -> Switch | None:
    """Home tokens of one kind together, or spread them."""
    if not isinstance(instance.planning, TokenPart):
        return None
    other = "by_token" if options.homes == "by_tag" else "by_tag"
    return Switch(what=f"homes {other}", options={"homes": other})


def shuffled(part: TokenPart) -> TokenPart:
    """Return the part with homes dealt out anew among its tokens."""
    order_T = np.random.default_rng(SHUFFLE_SEED).permutation(part.token_count)
    source_T = part.source_T[order_T]
    return replace(
        part,
        source_T=source_T,
        rank_T=part.rank_T[order_T],
        ordinal_T=running_index(source_T),
    )


def _demand(part: TokenPart, layer: int) -> PairCounts:
    """Return the (token, expert) pairs of a layer by source GPU and expert."""
    ids_TK = part.experts_LTK[layer].astype(np.int64)
    known_TK = ids_TK >= 0
    source_x = np.broadcast_to(part.source_T[:, None], ids_TK.shape)[known_TK]
    expert_x = ids_TK[known_TK]
    size = 1 + max(int(source_x.max(initial=0)), int(expert_x.max(initial=0)))
    return PairCounts.of_keys(size, source_x * size + expert_x)


def _chi_square_sigmas(demand: PairCounts) -> float:
    """Return how far χ² of independence lies above its mean, in sigmas.

    χ² = n · Σ observed² / (row · column) − n: only pairs that occur count.
    """
    if not demand.total:
        return 0.0
    row_S = np.bincount(demand.source_n, weights=demand.count_n)
    column_E = np.bincount(demand.target_n, weights=demand.count_n)
    freedom = (np.count_nonzero(row_S) - 1) * (np.count_nonzero(column_E) - 1)
    if freedom <= 0:
        return 0.0
    margins_n = row_S[demand.source_n] * column_E[demand.target_n]
    total = float(demand.total)
    chi_square = total * float((demand.count_n**2 / margins_n).sum()) - total
    return float((chi_square - freedom) / sqrt(2 * freedom))


EFFECTS.register("homes")(
    EffectRule(letter="b", seen=_seen, room=_room, blind=_blind, switched=_switched)
)
