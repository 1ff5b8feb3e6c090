"""From exact counts to the figures of a manifest.

Both the pipeline and the tests fill manifests through these functions. They only
arrange numbers: what the numbers are is counted by the evaluator, and counted
again by the witness.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import numpy as np

from planner.arrays import ExactArray, IntArray
from planner.manifest.schema import (
    BusiestLink,
    GpuPrediction,
    LayerPrediction,
    Leg,
    Mode,
    ModeValues,
    Name,
    ObjectiveReport,
)
from planner.pair_counts import PairCounts
from planner.topology.graph import Kind, Link, kinds_of

UNITS = {"link_time": "s", "link_tokens": "tokens", "gpu_tokens": "pairs"}


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerCounts:
    """Exact counts of one layer on one part of the workload.

    Attributes
    ----------
    transfers
        Dispatch transfers per ordered GPU pair, over ``denominator``.
    loads_2A
        Loads of every link in dispatch and combine, over ``denominator`` · Q.
    imbalance, domain_imbalance
        Rule 26, per GPU and per domain.
    combine
        Combine transfers likewise; None where they mirror dispatch.
    """

    layer: int
    transfers: PairCounts
    loads_2A: ExactArray
    denominator: int
    imbalance: Fraction
    domain_imbalance: Fraction
    combine: PairCounts | None = None


def exact_text(value: Fraction | int) -> str:
    """Return an exact rational as ``numerator/denominator`` in lowest terms."""
    number = Fraction(value)
    return f"{number.numerator}/{number.denominator}"


def digest_of_counts(counts: ExactArray, denominator: int = 1) -> str:
    """Return the SHA-256 that stands for a whole array of exact counts.

    The text that is digested: a line ``<shape>/<denominator>``, where the shape is
    the axis lengths joined by ``x`` and the common factors of the denominator and
    all counts are divided out; then one line ``<index> <count>`` for every count
    that is not zero, by ascending row-major index. Lines end in a line feed.
    """
    flat = counts.reshape(-1)
    where = np.flatnonzero(flat)
    return _digest(counts.shape, where, flat[where], denominator)


def digest_of_pairs(pairs: PairCounts, denominator: int = 1) -> str:
    """Return the digest of an array [G, G] of which only some pairs count."""
    where = pairs.source_n * pairs.gpus + pairs.target_n
    return _digest((pairs.gpus, pairs.gpus), where, pairs.count_n, denominator)


def objective_report(
    name: Name,
    layers: Mode,
    scope: Sequence[str],
    values: Mapping[str, Mapping[str, Fraction]],
    *,
    per_token: bool = False,
) -> ObjectiveReport:
    """Return the report of all nine values, ``values[objective][layer mode]``.

    ``per_token`` says that they are combined from several workloads (rule 25).
    """
    modes = {key: _mode_values(by_mode) for key, by_mode in values.items()}
    value = values[name][layers]
    return ObjectiveReport.model_validate(
        {
            "name": name,
            "layers": layers,
            "scope": tuple(scope),
            "value": float(value),
            "value_exact": exact_text(value),
            "unit": UNITS[name] + ("/token" if per_token else ""),
            **modes,
        }
    )


def layer_prediction(
    counts: LayerCounts,
    *,
    links: Sequence[Link],
    domain_G: IntArray,
    q: int,
    message_bytes: tuple[int, int],
    kinds: Sequence[Kind] | None = None,
) -> LayerPrediction:
    """Return the figures of one layer: totals, digests and the busiest links.

    ``kinds`` are those of ``links``, where they are known already.
    """
    kinds = kinds_of(links) if kinds is None else kinds
    over = counts.denominator
    legs: tuple[tuple[Leg, int], ...] = (("dispatch", 0), ("combine", 1))
    busiest = [
        entry
        for leg, row in legs
        for entry in _busiest(
            leg, counts.loads_2A[row], links, kinds, over * q, message_bytes[row]
        )
    ]
    return LayerPrediction(
        layer=counts.layer,
        transfers_exact=exact_text(Fraction(counts.transfers.total, over)),
        inter_domain_transfers_exact=exact_text(
            Fraction(counts.transfers.between(domain_G), over)
        ),
        transfers_sha256=digest_of_pairs(counts.transfers, over),
        combine_sha256=None
        if counts.combine is None
        else digest_of_pairs(counts.combine, over),
        links_sha256=digest_of_counts(counts.loads_2A, over * q),
        imbalance=float(counts.imbalance),
        domain_imbalance=float(counts.domain_imbalance),
        busiest=tuple(busiest),
    )


def gpu_predictions(
    gpus: Sequence[str],
    pairs_G: Sequence[Fraction],
    memory_bytes_G: IntArray,
    memory_limit_G: IntArray,
) -> tuple[GpuPrediction, ...]:
    """Return the figures of every GPU; ``pairs_G`` sums over all layers."""
    return tuple(
        GpuPrediction(
            gpu=gpu,
            pairs=float(pairs_G[index]),
            pairs_exact=exact_text(pairs_G[index]),
            memory_bytes=int(memory_bytes_G[index]),
            memory_limit_bytes=int(memory_limit_G[index]),
        )
        for index, gpu in enumerate(gpus)
    )


def gap_of(objective: Fraction, bound: float) -> float:
    """Return (objective − bound)/objective, 0 if the objective is 0 (rule 28).

    Never below 0: of an optimum the bound, a float, may be the next number above.
    """
    if objective == 0:
        return 0.0
    return float(max(Fraction(0), (objective - Fraction(bound)) / objective))


def _mode_values(by_mode: Mapping[str, Fraction]) -> ModeValues:
    floats = {mode: float(value) for mode, value in by_mode.items()}
    exact = {f"{mode}_exact": exact_text(value) for mode, value in by_mode.items()}
    return ModeValues.model_validate({**floats, **exact})


def _busiest(
    leg: Leg,
    loads_A: ExactArray,
    links: Sequence[Link],
    kinds: Sequence[Kind],
    over: int,
    message: int,
) -> list[BusiestLink]:
    """The first link with the longest time in every class that carries a load."""
    best: dict[str, tuple[Fraction, int]] = {}
    for kind in kinds:
        place = int(np.argmax(loads_A[kind.index_k]))
        index = int(kind.index_k[place])
        load = int(loads_A[index])
        if not load:
            continue
        seconds = Fraction(load * message, over) / kind.bytes_per_s
        known = best.get(kind.link_class, (Fraction(-1), 0))
        if (seconds, -index) > (known[0], -known[1]):
            best[kind.link_class] = (seconds, index)
    return [
        _busiest_link(leg, links[index], loads_A, links, over, message)
        for _, (_, index) in sorted(best.items())
    ]


def _busiest_link(
    leg: Leg,
    link: Link,
    loads_A: ExactArray,
    links: Sequence[Link],
    over: int,
    message: int,
) -> BusiestLink:
    members = [links[index] for index in link.members] or [link]
    tokens = sum(
        (
            Fraction(int(loads_A[member.index]), over * member.token_divisor)
            for member in members
        ),
        Fraction(0),
    )
    carried = Fraction(int(loads_A[link.index]) * message, over)
    seconds = carried / link.bytes_per_s
    return BusiestLink(
        leg=leg,
        link_class=link.link_class,
        link=link.name,
        tokens=float(tokens),
        tokens_exact=exact_text(tokens),
        bytes=float(carried),
        seconds=float(seconds),
        seconds_exact=exact_text(seconds),
    )


def _digest(
    shape: Sequence[int], where: IntArray, values: ExactArray, denominator: int
) -> str:
    common = gcd(denominator, *values.tolist())
    head = "x".join(str(length) for length in shape) + f"/{denominator // common}\n"
    entries = np.stack([where.astype(object), values.astype(object) // common], axis=1)
    text = "%d %d\n" * len(entries) % tuple(entries.reshape(-1).tolist())
    return hashlib.sha256((head + text).encode()).hexdigest()
