"""What binds a plan, layer by layer: links or GPUs, caps, and prices that prove it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from planner.arrays import ExactArray, FloatArray
from planner.evaluator import Evaluation
from planner.evaluator.layer import LayerLoads
from planner.evaluator.objective import leg_peaks, link_tokens
from planner.instance import PlacementInstance, scope_of

LEGS = ("dispatch", "combine")
NEAR = 0.01
"""Share below the busiest within which another link is as good as busiest."""
SHOWN_PRICES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The busiest link of one leg, or the busiest GPU.

    Attributes
    ----------
    value
        Its load in the objective's unit: seconds, tokens or pairs.
    near
        How many links (GPUs), itself included, are within 1 % of it.
    spare
        Share by which it must fall before a link that is not near it binds instead.
    """

    leg: str
    name: str
    link_class: str
    value: float
    near: int
    spare: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CapRow:
    """One imbalance cap in one layer; it binds where it is reached up to 1 %."""

    name: str
    cap: float
    reached: float
    binds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A marginal price of the layer's certificate.

    ``amount`` is, for a link, the share of the bound it carries (1 % faster lowers
    the bound by 1 % of that share); for ``slot``, what the bound falls by if every
    GPU gets one slot more; for a cap, what it falls by if the cap rises by 0.01.
    """

    row: str
    amount: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBinding:
    """What holds one layer where it is.

    ``bound`` is the layer's lower bound as the manifest records it; ``prices`` are
    those of its certificate, the highest first.
    """

    layer: int
    value: float
    peaks: tuple[Peak, ...]
    caps: tuple[CapRow, ...]
    bound: float | None
    bound_method: str | None
    prices: tuple[Price, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRow:
    """The GPU with least memory left, and what one slot more in all layers takes.

    ``grows``: whether a GPU may have one slot more; not where the policy gives it one
    expert, nor where it holds every expert of the model.
    """

    gpu: str
    free_bytes: int
    slot_bytes: int
    grows: bool = True

    @property
    def binds(self) -> bool:
        """Whether one slot more does not fit."""
        return self.grows and self.free_bytes < self.slot_bytes


def what_binds(evaluation: Evaluation) -> list[tuple[str, int]]:
    """Return the link classes of the busiest links with how many legs each binds.

    For ``gpu_tokens`` the only class is ``gpu``.
    """
    instance = evaluation.instance
    found: Counter[str] = Counter()
    for loads in evaluation.layers:
        found.update(peak.link_class for peak in peaks_of(instance, loads))
    return found.most_common()


def peaks_of(instance: PlacementInstance, loads: LayerLoads) -> list[Peak]:
    """Return the busiest link of each leg that moves anything, or the busiest GPU."""
    name = instance.objective.name
    found = []
    rows = _rows(instance, loads)
    for number, leg in enumerate(leg_peaks(instance, loads, name)):
        if leg.value <= 0:
            continue
        value_X = rows[number]
        least = float(leg.value) * (1 - NEAR)
        below = value_X[value_X < least]
        is_gpu = name == "gpu_tokens"
        link = None if is_gpu else instance.topology.links[leg.index]
        found.append(
            Peak(
                leg="compute" if is_gpu else LEGS[number],
                name=link.name if link else instance.topology.gpus[leg.index].id,
                link_class=link.link_class if link else "gpu",
                value=float(leg.value),
                near=int((value_X >= least).sum()),
                spare=1 - float(below.max(initial=0.0)) / float(leg.value),
            )
        )
    return found


def layer_bindings(
    evaluation: Evaluation,
    bounds: Sequence[tuple[float, str] | None],
    certificates: Sequence[Mapping[str, Any] | None],
) -> tuple[LayerBinding, ...]:
    """Return what binds in every layer.

    Parameters
    ----------
    bounds
        Value and method of every layer's bound, None without one.
    certificates
        The certificate of every layer's bound, None without one.
    """
    instance = evaluation.instance
    return tuple(
        LayerBinding(
            layer=number,
            value=float(_layer_value(instance, evaluation.layers[index])),
            peaks=tuple(peaks_of(instance, evaluation.layers[index])),
            caps=tuple(_caps(evaluation, index)),
            bound=None if (bound := bounds[index]) is None else bound[0],
            bound_method=None if bound is None else bound[1],
            prices=tuple(prices_of(certificates[index], instance)),
        )
        for index, number in enumerate(instance.model.moe_layers)
    )


def prices_of(
    certificate: Mapping[str, Any] | None, instance: PlacementInstance
) -> list[Price]:
    """Return the marginal prices that a certificate of kind ``prices`` holds."""
    if certificate is None or certificate.get("kind") != "prices":
        return []
    unit = float(Fraction(certificate["unit"]))
    found = [
        Price(row=f"{leg} {name}", amount=float(Fraction(share)))
        for leg, by_name in certificate["links"].items()
        for name, share in by_name.items()
    ]
    ids = [gpu.id for gpu in instance.topology.gpus]
    found += [
        Price(row=f"gpu {name}", amount=float(Fraction(share)))
        for name, share in zip(ids, certificate.get("gpus") or (), strict=False)
    ]
    links = sorted(found, key=lambda price: -price.amount)[:SHOWN_PRICES]
    slots = Price(row="slot", amount=float(sum(certificate["slots"])) * unit)
    caps = [
        Price(
            row=f"cap on {', '.join(ids[gpu] for gpu in entry['gpus'])}",
            amount=0.01 * entry["price"] * unit * len(entry["gpus"]),
        )
        for entry in certificate["caps"]
    ]
    return [price for price in (*links, slots, *caps) if price.amount]


def memory_row(instance: PlacementInstance, *, one_expert: bool = False) -> MemoryRow:
    """Return the fullest GPU and what one slot more would take.

    ``one_expert`` says that the policy gives every GPU one expert (of each layer).
    """
    free_G = instance.memory_limit_G - instance.memory_bytes_G
    worst = int(np.argmin(free_G))
    return MemoryRow(
        gpu=instance.topology.gpus[worst].id,
        free_bytes=int(free_G[worst]),
        slot_bytes=instance.layer_count * instance.model.expert_bytes,
        grows=not (one_expert or instance.single)
        and instance.slots_per_gpu < instance.model.experts,
    )


def _layer_value(instance: PlacementInstance, loads: LayerLoads) -> Fraction:
    peaks = leg_peaks(instance, loads, instance.objective.name)
    return sum((peak.value for peak in peaks), Fraction(0))


def _rows(instance: PlacementInstance, loads: LayerLoads) -> list[FloatArray]:
    """Return what the objective takes the largest of: per leg, by link or GPU."""
    over = float(loads.denominator)
    if instance.objective.name == "gpu_tokens":
        return [_floats(loads.pairs_G) / over]
    over *= float(instance.routes.q)
    links = instance.topology.links
    if instance.objective.name == "link_time":
        return [
            _floats(load_A) * instance.topology.seconds_per_byte.near_A * size / over
            for load_A, size in zip(loads.loads_2A, instance.message_bytes, strict=True)
        ]
    tokens_2A, common = link_tokens(loads.loads_2A, instance.topology)
    inside_A = scope_of(links, instance.objective.link_classes)
    return [_floats(tokens_2A[leg]) * inside_A / (over * common) for leg in (0, 1)]


def _floats(values: ExactArray) -> FloatArray:
    return values.astype(np.float64)


def _caps(evaluation: Evaluation, index: int) -> list[CapRow]:
    caps = evaluation.instance.caps
    rows = (
        ("max/mean per GPU", caps.gpu_at(index), evaluation.gpu_imbalance_L[index]),
        (
            "max/mean per domain",
            caps.domain_at(index),
            evaluation.domain_imbalance_L[index],
        ),
    )
    return [
        CapRow(
            name=name,
            cap=float(cap),
            reached=float(reached),
            binds=float(reached) >= float(cap) * (1 - NEAR),
        )
        for name, cap, reached in rows
        if cap is not None
    ]
