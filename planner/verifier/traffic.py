"""Counts every transfer and link load again and compares with the manifest."""

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np

from planner.arrays import IdArray, IntArray
from planner.manifest import digest_of_counts, digest_of_pairs, exact_text, slots_array
from planner.manifest.schema import (
    GpuPrediction,
    Layer,
    LayerPrediction,
    PartPrediction,
)
from planner.plan import SplitWeights
from planner.topology.graph import Link
from planner.verifier.ledger import Ledger
from planner.verifier.setting import Setting
from planner.witness import counts as tables
from planner.witness import figures
from planner.witness.figures import LayerFigures
from planner.witness.selection import chosen_ranks
from planner.witness.transfers import both_legs, forwarded, gpu_pairs, homeward
from planner.workload.parts import CountsPart, Part, TokenPart


def count_again(setting: Setting, part: Part) -> list[LayerFigures]:
    """Return the exact counts of every layer on one part, by the witness."""
    if isinstance(part, CountsPart):
        return [_expected(setting, part, at) for at in range(len(_layers(setting)))]
    result: list[LayerFigures] = []
    stand_T = part.source_T
    for index in range(len(_layers(setting))):
        targets_TK = _targets(setting, part, index, stand_T)
        sent, back, stand_T = both_legs(
            setting.traffic, setting.endpoint, targets_TK, stand_T, setting.layout
        )
        if setting.traffic == "direct" and index + 1 == len(_layers(setting)):
            gpus = setting.layout.gpu_count
            back = back.plus(homeward(stand_T, part.source_T, gpus))
        pairs_G = gpu_pairs(targets_TK, setting.layout.gpu_count)
        result.append(figures.layer_figures(pairs_G, sent, 1, setting.routes, back))
    return result


def _layers(setting: Setting) -> Sequence[Layer]:
    return setting.manifest.layers


def _targets(
    setting: Setting, part: TokenPart, index: int, stand_T: IntArray
) -> IntArray:
    """GPU that serves each (token, expert), the tokens standing at ``stand_T``."""
    return chosen_ranks(
        *_slots_and_split(setting, index),
        setting.manifest.selection,
        part.experts_LTK[index],
        stand_T,
        part.rank_T,
        part.ordinal_T,
        setting.layout,
    )


def _expected(setting: Setting, part: CountsPart, index: int) -> LayerFigures:
    """Figures of one layer of a counts table."""
    pairs_GG, denominator = tables.expected_pairs(
        *_slots_and_split(setting, index),
        setting.manifest.selection,
        part.tokens_LE[index],
        setting.layout,
    )
    transfers = forwarded(
        tables.transfers_of_pairs(pairs_GG), setting.layout, setting.endpoint
    )
    return figures.layer_figures(
        pairs_GG.sum(axis=0), transfers, denominator, setting.routes
    )


def _slots_and_split(
    setting: Setting, index: int
) -> tuple[IdArray, dict[int, SplitWeights]]:
    layer = _layers(setting)[index]
    split: dict[int, SplitWeights] = {
        int(expert): by for expert, by in (layer.split or {}).items()
    }
    return slots_array(layer.slots), split


def check_prediction(
    where: str,
    claimed: PartPrediction,
    setting: Setting,
    part: Part,
    counted: Sequence[LayerFigures],
    ledger: Ledger,
) -> None:
    """Compare the counts of one part, layer by layer and link by link."""
    layout, q = setting.layout, setting.routes.q
    ledger.equal("totals", f"{where}.q", claimed.q, str(q))
    ledger.equal(
        "totals",
        f"{where}.tokens_exact",
        claimed.tokens_exact,
        exact_text(tokens_of(part)),
    )
    ledger.equal(
        "totals",
        f"{where}.inter_domain_bytes_exact",
        claimed.inter_domain_bytes_exact,
        exact_text(figures.inter_domain_bytes(counted, layout, setting.message)),
    )
    ledger.equal(
        "totals",
        f"{where}.home_tokens_max_over_mean",
        claimed.home_tokens_max_over_mean,
        setting.parts.homes.ratio,
    )
    ledger.expect(
        "totals",
        len(claimed.layers) == len(counted),
        f"{where}.layers: {len(claimed.layers)} layers, the plan has {len(counted)}",
    )
    for layer, found in zip(claimed.layers, counted, strict=False):
        _check_layer(f"{where} layer {layer.layer}", layer, found, setting, ledger)


def _check_layer(
    at: str,
    layer: LayerPrediction,
    found: LayerFigures,
    setting: Setting,
    ledger: Ledger,
) -> None:
    """Compare the counts of one layer."""
    layout, over, q = setting.layout, found.denominator, setting.routes.q
    totals = {
        "transfers_exact": exact_text(Fraction(found.transfers.total, over)),
        "inter_domain_transfers_exact": exact_text(
            Fraction(found.transfers.between(layout.domain_G), over)
        ),
    }
    for name, total in totals.items():
        ledger.equal("transfers", f"{at} {name}", getattr(layer, name), total)
    ledger.equal(
        "transfers",
        f"{at} transfers_sha256",
        layer.transfers_sha256,
        digest_of_pairs(found.transfers, over),
    )
    combine = None
    if setting.traffic == "direct":
        combine = digest_of_pairs(found.combine, over)
    ledger.equal("transfers", f"{at} combine_sha256", layer.combine_sha256, combine)
    ledger.equal(
        "link loads",
        f"{at} links_sha256",
        layer.links_sha256,
        digest_of_counts(np.stack([found.dispatch_A, found.combine_A]), over * q),
    )
    balance = figures.imbalance(found)
    ledger.equal("imbalance", f"{at} imbalance", layer.imbalance, float(balance))
    ledger.equal(
        "imbalance",
        f"{at} domain_imbalance",
        layer.domain_imbalance,
        float(figures.domain_imbalance(found, layout)),
    )
    _check_busiest(at, layer, found, setting, ledger)


def check_gpus(
    claimed: Sequence[GpuPrediction], counted: Sequence[LayerFigures], ledger: Ledger
) -> None:
    """Compare the pairs that every GPU computes over all layers."""
    over = lcm(*(at.denominator for at in counted))
    total_G = [0] * len(claimed)
    for at in counted:
        scale = over // at.denominator
        for index in np.flatnonzero(at.pairs_G).tolist():
            total_G[index] += int(at.pairs_G[index]) * scale
    for gpu, total in zip(claimed, total_G, strict=True):
        pairs = Fraction(total, over)
        where = f"prediction.gpus {gpu.gpu}"
        ledger.equal("GPU loads", f"{where} pairs", gpu.pairs, float(pairs))
        ledger.equal("GPU loads", f"{where} pairs", gpu.pairs_exact, exact_text(pairs))


def tokens_of(part: Part) -> Fraction:
    """Return the tokens of a part; a counts table's as rule 11 counts them."""
    if isinstance(part, CountsPart):
        per_layer = [Fraction(int(row.sum()), part.top_k) for row in part.tokens_LE]
        return sum(per_layer, Fraction(0)) / len(per_layer)
    return Fraction(part.token_count)


def _check_busiest(
    at: str,
    layer: LayerPrediction,
    found: LayerFigures,
    setting: Setting,
    ledger: Ledger,
) -> None:
    """In every class that carries something: the first of the slowest links."""
    links, over = setting.topology.links, found.denominator * setting.routes.q
    legs = (
        ("dispatch", found.dispatch_A, setting.message[0]),
        ("combine", found.combine_A, setting.message[1]),
    )
    expected: dict[tuple[str, str], tuple[object, ...]] = {}
    for leg, loads_A, size in legs:
        slowest: dict[str, tuple[Fraction, Link]] = {}
        for kind in setting.topology.kinds:
            most = loads_A[kind.index_k].max()
            link = links[int(kind.index_k[loads_A[kind.index_k] == most][0])]
            seconds = Fraction(int(most) * size, over) / kind.bytes_per_s
            held = slowest.get(kind.link_class)
            if most and (
                held is None
                or seconds > held[0]
                or (seconds == held[0] and link.index < held[1].index)
            ):
                slowest[kind.link_class] = (seconds, link)
        for name, (seconds, link) in slowest.items():
            carried = Fraction(int(loads_A[link.index]) * size, over)
            tokens = figures.tokens_on(link, loads_A, links, over)
            expected[leg, name] = (
                link.name,
                exact_text(tokens),
                float(tokens),
                float(carried),
                exact_text(seconds),
                float(seconds),
            )
    claimed: dict[tuple[str, str], tuple[object, ...]] = {
        (entry.leg, entry.link_class): (
            entry.link,
            entry.tokens_exact,
            entry.tokens,
            entry.bytes,
            entry.seconds_exact,
            entry.seconds,
        )
        for entry in layer.busiest
    }
    ledger.equal("busiest links", f"{at} entries", len(layer.busiest), len(expected))
    for leg, name in sorted(expected.keys() | claimed.keys()):
        ledger.equal(
            "busiest links",
            f"{at} {leg} {name}",
            claimed.get((leg, name)),
            expected.get((leg, name)),
        )
