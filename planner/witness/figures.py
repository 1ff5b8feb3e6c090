"""Loads, objective values and imbalance a second time: rules 10, 21, 23, 26, 27.

Everything is an integer or a ``Fraction``. The routes are shared with the rest of
the planner by design (the test oracles recompute them); nothing else is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import numpy as np

from planner.arrays import ExactArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.topology.graph import Link
from planner.topology.paths import Routes
from planner.workload.model_spec import MoEModelSpec

MODES = ("sequential", "pipelined", "worst_layer")
INNER_KINDS = ("nvlink", "xgmi", "pcie", "upi", "c2c")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LayerFigures:
    """Exact counts of one layer.

    Attributes
    ----------
    pairs_G
        (token, expert) pairs per GPU, over ``denominator``.
    transfers
        Dispatch transfers per ordered GPU pair, over ``denominator``.
    combine
        Combine transfers likewise.
    dispatch_A, combine_A
        Load of every link in transfers, over ``denominator`` · Q.
    """

    pairs_G: ExactArray
    transfers: PairCounts
    combine: PairCounts
    dispatch_A: ExactArray
    combine_A: ExactArray
    denominator: int


def layer_figures(
    pairs_G: ExactArray,
    transfers: PairCounts,
    denominator: int,
    routes: Routes,
    combine: PairCounts | None = None,
) -> LayerFigures:
    """Return the figures of a layer; by default combine mirrors dispatch (rule 21)."""
    back = transfers.transposed() if combine is None else combine
    return LayerFigures(
        pairs_G=pairs_G,
        transfers=transfers,
        combine=back,
        dispatch_A=routes.loads(transfers),
        combine_A=routes.loads(back),
        denominator=denominator,
    )


def message_bytes(model: MoEModelSpec, traffic: str) -> tuple[int, int]:
    """Return the bytes of one dispatch and one combine transfer (rule 22)."""
    hidden, top_k = model.hidden, model.top_k
    scales = 4 * ceil(Fraction(hidden, 128))
    fp8 = model.dispatch_dtype == "fp8"
    if traffic in ("copies", "direct"):
        return 16 + (hidden + scales if fp8 else 2 * hidden), 2 * hidden
    payload = hidden + scales if fp8 else 2 * hidden
    dispatch = ceil(Fraction(payload + 8 + 8 * top_k, 16)) * 16
    return dispatch, ceil(Fraction(2 * hidden + 8 + 4 * top_k, 16)) * 16


def scope(links: Sequence[Link], classes: Sequence[str] | None) -> list[Link]:
    """Return the links that count for ``link_tokens`` (rules 10, 23)."""
    edges = [link for link in links if not link.members]
    if classes is None:
        inside = [link for link in edges if link.kind not in INNER_KINDS] or edges
    else:
        inside = [link for link in edges if link.link_class in classes]
    chosen = {link.index for link in inside}
    return [
        link
        for link in links
        if link.index in chosen or any(member in chosen for member in link.members)
    ]


def values(
    layers: Sequence[LayerFigures],
    links: Sequence[Link],
    q: int,
    message: tuple[int, int],
    classes: Sequence[str] | None,
) -> dict[str, dict[str, Fraction]]:
    """Return all nine values: objective, then layer mode."""
    whole = lcm(*(figures.denominator for figures in layers))
    index = [link.index for link in scope(links, classes)]
    units = [[Fraction(size) / link.bytes_per_s for link in links] for size in message]
    tick = lcm(*{unit.denominator for leg in units for unit in leg})
    ticks = [np.asarray([int(unit * tick) for unit in leg], object) for leg in units]
    divisor = lcm(*(link.token_divisor for link in links))
    share_A = np.asarray([divisor // link.token_divisor for link in links], object)
    groups = [link for link in links if link.members]
    seconds, tokens, pairs = [], [], []
    for figures in layers:
        scale = whole // figures.denominator
        legs = [
            leg.astype(object) * scale
            for leg in (figures.dispatch_A, figures.combine_A)
        ]
        seconds.append([leg * unit_A for leg, unit_A in zip(legs, ticks, strict=True)])
        shared = [leg * share_A for leg in legs]
        for leg in shared:
            for group in groups:
                leg[group.index] = leg[list(group.members)].sum()
        tokens.append([leg[index] for leg in shared])
        pairs.append([figures.pairs_G.astype(object) * scale])
    return {
        "link_time": _modes(seconds, whole * q * tick),
        "link_tokens": _modes(tokens, whole * q * divisor),
        "gpu_tokens": _modes(pairs, whole),
    }


def tokens_on(
    link: Link, loads_A: ExactArray, links: Sequence[Link], over: int
) -> Fraction:
    """Return the tokens of one link, its loads being over ``over`` (rule 10)."""
    edges = [links[at] for at in link.members] or [link]
    return sum(
        (
            Fraction(int(loads_A[edge.index]), over * edge.token_divisor)
            for edge in edges
        ),
        Fraction(0),
    )


def imbalance(figures: LayerFigures) -> Fraction:
    """Return max/mean of pairs over all GPUs of a layer; 1 without tokens."""
    total = int(figures.pairs_G.sum())
    if not total:
        return Fraction(1)
    return Fraction(int(figures.pairs_G.max()) * figures.pairs_G.size, total)


def domain_imbalance(figures: LayerFigures, layout: ParallelLayout) -> Fraction:
    """Return the largest pairs per GPU of a domain over that of the cluster."""
    total = int(figures.pairs_G.sum())
    if not total:
        return Fraction(1)
    size_N = np.bincount(layout.domain_G)
    pairs_N = np.zeros(size_N.size, dtype=figures.pairs_G.dtype)
    np.add.at(pairs_N, layout.domain_G, figures.pairs_G)
    # Of domains of one size only the fullest can be the busiest.
    busiest = max(
        Fraction(int(pairs_N[size_N == size].max()), size)
        for size in set(size_N.tolist()) - {0}
    )
    return busiest * layout.gpu_count / total


def inter_domain_bytes(
    layers: Sequence[LayerFigures], layout: ParallelLayout, message: tuple[int, int]
) -> Fraction:
    """Return the bytes between different domains, both legs (rule 27)."""
    total = Fraction(0)
    for found in layers:
        sent, back = (
            leg.between(layout.domain_G) for leg in (found.transfers, found.combine)
        )
        total += Fraction(sent * message[0] + back * message[1], found.denominator)
    return total


def _modes(loads: Sequence[Sequence[ExactArray]], over: int) -> dict[str, Fraction]:
    """The three layer modes of ``loads[layer][leg][link]`` (rule 23)."""
    peaks = [sum(int(leg.max()) for leg in legs) for legs in loads]
    running = sum(leg for legs in loads for leg in legs)
    return {
        "sequential": Fraction(sum(peaks), over),
        "pipelined": Fraction(int(np.max(running)), over),
        "worst_layer": Fraction(max(peaks), over),
    }
