"""Loads, objective values and imbalance a second time: rules 10, 21, 23, 26, 27.

Everything is an integer or a ``Fraction``. The routes are shared with the rest of
the planner by design (the test oracles recompute them); nothing else is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import numpy as np

from planner.arrays import BoolArray, ExactArray
from planner.layout import ParallelLayout
from planner.pair_counts import PairCounts
from planner.topology.graph import Kind, Link, kinds_of
from planner.topology.paths import Routes
from planner.workload.model_spec import MoEModelSpec

MODES = ("sequential", "pipelined", "worst_layer")
_SAFE = 2**62
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
    kinds: Sequence[Kind] | None = None,
) -> dict[str, dict[str, Fraction]]:
    """Return all nine values: objective, then layer mode.

    Of links of one kind the fullest is the slowest. ``kinds`` are those of
    ``links``, where they are known already.
    """
    whole = lcm(*(figures.denominator for figures in layers))
    every = kinds_of(links) if kinds is None else kinds
    counted = np.zeros(len(links), dtype=np.bool_)
    counted[[link.index for link in scope(links, classes)]] = True
    scales = [whole // figures.denominator for figures in layers]
    tokens_of = _TokenRule(links)
    most = max(1, *message, tokens_of.most) * 2 * len(layers)
    legs = [
        [_whole(leg, scale, most) for leg in (figures.dispatch_A, figures.combine_A)]
        for figures, scale in zip(layers, scales, strict=True)
    ]
    seconds = [
        [_slowest(leg, every) * size for leg, size in zip(pair, message, strict=True)]
        for pair in legs
    ]
    sent = [_total(each) for each in zip(*legs, strict=True)]
    both_A = sent[0] * message[0] + sent[1] * message[1]
    shared = [[tokens_of(leg) for leg in pair] for pair in legs]
    tokens = [[_most(leg, every, counted) for leg in pair] for pair in shared]
    running = _total([leg for pair in shared for leg in pair])
    pairs = [
        _whole(figures.pairs_G, scale, most)
        for figures, scale in zip(layers, scales, strict=True)
    ]
    fullest = [[Fraction(int(pairs_G.max()))] for pairs_G in pairs]
    together = Fraction(int(_total(pairs).max()))
    return {
        "link_time": _modes(seconds, _slowest(both_A, every), whole * q),
        "link_tokens": _modes(
            tokens, _most(running, every, counted), whole * q * tokens_of.common
        ),
        "gpu_tokens": _modes(fullest, together, whole),
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


def _whole(counts: ExactArray, scale: int, most: int) -> ExactArray:
    """Counts times ``scale``; int64 where even ``most`` times that fits."""
    largest = int(np.abs(counts).max(initial=0)) * scale
    exact = counts if largest * most < _SAFE else counts.astype(object)
    product: ExactArray = exact * scale
    return product


def _total(parts: Sequence[ExactArray]) -> ExactArray:
    """The sum of arrays of one shape."""
    total: ExactArray = np.sum(np.stack(parts), axis=0)
    return total


def _slowest(loads_A: ExactArray, kinds: Sequence[Kind]) -> Fraction:
    """The largest load over bandwidth."""
    return max(
        Fraction(int(loads_A[kind.index_k].max())) / kind.bytes_per_s for kind in kinds
    )


class _TokenRule:
    """Tokens by cables, then added up in groups, over ``common`` (rule 10)."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._groups = [link for link in links if link.members]
        self.common = lcm(*{link.token_divisor for link in links})
        self._factor_A = np.asarray(
            [self.common // link.token_divisor for link in links]
        )

    @property
    def most(self) -> int:
        """How many times a load's largest entry a link's tokens can be at most."""
        members = max((len(link.members) for link in self._groups), default=1)
        return self.common * members

    def __call__(self, loads_A: ExactArray) -> ExactArray:
        """Return the tokens of every link."""
        tokens_A: ExactArray = loads_A * self._factor_A
        for link in self._groups:
            tokens_A[link.index] = tokens_A[list(link.members)].sum()
        return tokens_A


def _most(tokens_A: ExactArray, kinds: Sequence[Kind], counted: BoolArray) -> Fraction:
    """The most tokens on a link that counts."""
    inside = [kind.index_k[counted[kind.index_k]] for kind in kinds]
    return Fraction(max(int(tokens_A[index].max()) for index in inside if index.size))


def _modes(
    peaks: Sequence[Sequence[Fraction]], running: Fraction, over: int
) -> dict[str, Fraction]:
    """The three layer modes of ``peaks[layer][leg]`` (rule 23)."""
    layers = [sum(legs, Fraction(0)) for legs in peaks]
    return {
        "sequential": sum(layers, Fraction(0)) / over,
        "pipelined": running / over,
        "worst_layer": max(layers) / over,
    }
