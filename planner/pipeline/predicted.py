"""Counts of a replay held against what the plan's manifest predicts of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np

from planner.executor.counter import Counting
from planner.executor.result import ReplayResult
from planner.manifest import digest_of_counts, digest_of_pairs
from planner.manifest.schema import LayerPrediction
from planner.pipeline.evaluating import plan_of
from planner.verifier import Setting
from planner.witness.figures import LayerFigures, layer_figures
from planner.workload.parts import TokenPart


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDigests:
    """One layer of a replay: transfers of each leg, and what stands for every pair.

    Attributes
    ----------
    links
        Stands for the load of every link in both legs.
    """

    sent: int
    answered: int
    dispatch: str
    combine: str
    links: str

    @classmethod
    def of_figures(cls, found: LayerFigures, q: int) -> Self:
        """Return those of counts kept by pair."""
        return cls(
            sent=found.transfers.total,
            answered=found.combine.total,
            dispatch=digest_of_pairs(found.transfers),
            combine=digest_of_pairs(found.combine),
            links=digest_of_counts(np.stack([found.dispatch_A, found.combine_A]), q),
        )

    @classmethod
    def of_result(cls, result: ReplayResult) -> list[Self]:
        """Return those of every layer of moved tensors."""
        return [
            cls(
                sent=int(dispatch_GG.sum()),
                answered=int(combine_GG.sum()),
                dispatch=digest_of_counts(dispatch_GG),
                combine=digest_of_counts(combine_GG),
                links=digest_of_counts(loads_2A, result.q),
            )
            for dispatch_GG, combine_GG, loads_2A in zip(
                *result.transfers_L2GG, result.numerators_L2A, strict=True
            )
        ]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Counted:
    """A part counted under one selection, with what it took."""

    layers: list[LayerFigures]
    seconds: float


def counting_of(setting: Setting, selection: str) -> Counting:
    """Return a counter of the setting's plan that has counted nothing yet."""
    return Counting(
        plan_of(setting.manifest),
        setting.layout,
        traffic=setting.traffic,
        selection=selection,
        endpoint=setting.endpoint,
    )


def figures_of(counting: Counting, setting: Setting) -> list[LayerFigures]:
    """Return what was counted, with the links it loads."""
    return [
        layer_figures(layer.pairs_G, layer.dispatch, 1, setting.routes, layer.combine)
        for layer in counting.layers()
    ]


def count_part(setting: Setting, part: TokenPart, selection: str) -> Counted:
    """Count a part without tensors; only pairs of GPUs that count something are kept.

    Raises
    ------
    VerificationError
        A chosen expert has no copy.
    """
    start = time.perf_counter()
    counting = counting_of(setting, selection)
    counting.add(part)
    layers = figures_of(counting, setting)
    return Counted(layers=layers, seconds=time.perf_counter() - start)


def differences(
    name: str, predicted: Sequence[LayerPrediction], found: Sequence[LayerDigests]
) -> list[str]:
    """Return one sentence per layer and count that is not as predicted."""
    findings = []
    for layer, own in zip(predicted, found, strict=True):
        where = f"{name} part, layer {layer.layer}"
        if own.dispatch != layer.transfers_sha256:
            findings.append(
                f"{where}: {own.sent} transfers moved between GPUs differ from the "
                f"{Fraction(layer.transfers_exact)} predicted, or from their pairs"
            )
        if layer.combine_sha256 not in (None, own.combine):
            findings.append(f"{where}: combine transfers differ from the predicted")
        if own.links != layer.links_sha256:
            findings.append(f"{where}: link loads differ from the predicted ones")
    return findings
