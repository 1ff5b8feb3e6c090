"""Loads, objective values and imbalance a second time: rules 10, 21, 23, 26, 27.

Everything is an integer or a ``Fraction``. The routes are shared with the rest of
the planner by design (the test oracles recompute them); nothing else is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

from planner.arrays import ExactArray
from planner.layout import ParallelLayout
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
    transfers_GG
        Dispatch transfers per ordered GPU pair, over ``denominator``.
    combine_GG
        Combine transfers likewise.
    dispatch_A, combine_A
        Load of every link in transfers, over ``denominator`` · Q.
    """

    pairs_G: ExactArray
    transfers_GG: ExactArray
    combine_GG: ExactArray
    dispatch_A: ExactArray
    combine_A: ExactArray
    denominator: int


def layer_figures(
    pairs_G: ExactArray,
    transfers_GG: ExactArray,
    denominator: int,
    routes: Routes,
    combine_GG: ExactArray | None = None,
) -> LayerFigures:
    """Return the figures of a layer; by default combine mirrors dispatch (rule 21)."""
    back_GG = transfers_GG.T.copy() if combine_GG is None else combine_GG
    return LayerFigures(
        pairs_G=pairs_G,
        transfers_GG=transfers_GG,
        combine_GG=back_GG,
        dispatch_A=routes.loads(transfers_GG),
        combine_A=routes.loads(back_GG),
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
    counted = scope(links, classes)
    units = [[Fraction(size) / link.bytes_per_s for link in links] for size in message]
    tick = lcm(*(unit.denominator for leg in units for unit in leg))
    ticks = [[int(unit * tick) for unit in leg] for leg in units]
    divisor = lcm(*(link.token_divisor for link in links))
    seconds, tokens, pairs = [], [], []
    for figures in layers:
        scale = whole // figures.denominator
        legs = [
            [int(load) * scale for load in leg]
            for leg in (figures.dispatch_A, figures.combine_A)
        ]
        seconds.append(
            [
                [load * unit for load, unit in zip(leg, leg_ticks, strict=True)]
                for leg, leg_ticks in zip(legs, ticks, strict=True)
            ]
        )
        tokens.append(
            [[_tokens(link, leg, links, divisor) for link in counted] for leg in legs]
        )
        pairs.append([[int(pair) * scale for pair in figures.pairs_G]])
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
    pairs = [int(pair) for pair in figures.pairs_G]
    return Fraction(max(pairs) * len(pairs), sum(pairs)) if sum(pairs) else Fraction(1)


def domain_imbalance(figures: LayerFigures, layout: ParallelLayout) -> Fraction:
    """Return the largest pairs per GPU of a domain over that of the cluster."""
    inside: dict[int, list[int]] = {}
    for gpu, domain in enumerate(layout.domain_G.tolist()):
        inside.setdefault(domain, []).append(int(figures.pairs_G[gpu]))
    total = sum(sum(pairs) for pairs in inside.values())
    if total == 0:
        return Fraction(1)
    busiest = max(Fraction(sum(pairs), len(pairs)) for pairs in inside.values())
    return busiest * layout.gpu_count / total


def inter_domain_bytes(
    layers: Sequence[LayerFigures], layout: ParallelLayout, message: tuple[int, int]
) -> Fraction:
    """Return the bytes between different domains, both legs (rule 27)."""
    far = layout.domain_G[:, None] != layout.domain_G[None, :]
    total = Fraction(0)
    if far.any():
        for found in layers:
            sent, back = int(found.transfers_GG[far].sum()), found.combine_GG[far].sum()
            carried = sent * message[0] + int(back) * message[1]
            total += Fraction(carried, found.denominator)
    return total


def _tokens(
    link: Link, loads: Sequence[int], links: Sequence[Link], divisor: int
) -> int:
    """Tokens over ``divisor``: divided by the cables, then added up in a group."""
    edges = [links[at] for at in link.members] or [link]
    return sum(loads[edge.index] * (divisor // edge.token_divisor) for edge in edges)


def _modes(loads: list[list[list[int]]], over: int) -> dict[str, Fraction]:
    """The three layer modes of ``loads[layer][leg][link]`` (rule 23)."""
    peaks = [sum(max(leg) for leg in legs) for legs in loads]
    running = [0] * len(loads[0][0])
    for legs in loads:
        for leg in legs:
            running = [total + load for total, load in zip(running, leg, strict=True)]
    return {
        "sequential": Fraction(sum(peaks), over),
        "pipelined": Fraction(max(running), over),
        "worst_layer": Fraction(max(peaks), over),
    }
