"""One plan under several selections: what each would move, beside each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.errors import ReplayMismatch, UsageError
from planner.manifest import Manifest, read_manifest
from planner.manifest.schema import PartPrediction
from planner.pipeline.evaluating import plan_of
from planner.pipeline.predicted import LayerDigests, count_part, differences
from planner.pipeline.replaying import PARTS, parts_of_plan
from planner.verifier import Setting, settings_of
from planner.witness import figures
from planner.witness.figures import LayerFigures
from planner.workload.parts import TokenPart

SELECTIONS = ("nearest", "even", "weighted")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionFigures:
    """What one part of the trace would move under one selection.

    Attributes
    ----------
    predicted
        Whether this is the plan's own selection; its counts of every GPU pair and link
        were equal to the plan's prediction.
    transfers, between_domains
        Transfers of both legs over all layers, and those between domains.
    between_domains_share
        Their quotient; 0 where nothing moves.
    link_time_s, link_tokens
        The busiest link's, in the layer mode of the plan's objective (rule 23).
    gpu_load_mean, gpu_load_worst
        Max/mean of (token, expert) pairs per GPU: mean over layers, and the worst.
    """

    part: str
    selection: str
    predicted: bool
    tokens: int
    transfers: int
    between_domains: int
    between_domains_share: float
    link_time_s: float
    link_tokens: float
    gpu_load_mean: float
    gpu_load_worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionReport:
    """A plan's figures under several selections, part by part.

    Attributes
    ----------
    layers
        Layer mode of ``link_time_s`` and ``link_tokens``.
    """

    plan: str
    layers: str
    rows: tuple[SelectionFigures, ...]
    notes: tuple[str, ...]


def compare_selections(
    plan: str | Path, selections: Sequence[str], *, part: str = "both"
) -> SelectionReport:
    """Count a plan's trace under each selection.

    The counter counts, token by token; under the plan's own selection every GPU pair
    and link must come out as predicted.

    Raises
    ------
    ReplayMismatch
        If the counts of the plan's own selection differ from its prediction.
    UsageError
        For another selection or part, or a plan on a counts table.
    """
    wanted = _checked(selections, part)
    path = Path(plan)
    manifest = read_manifest(path)
    rows = []
    for name, setting, predicted, tokens in parts_of_plan(
        part, manifest, settings_of(manifest, path.parent)
    ):
        for selection in wanted:
            counted = count_part(setting, tokens, selection).layers
            own = selection == manifest.selection
            if own:
                _require_predicted(name, predicted, counted, setting)
            rows.append(_row(name, selection, own, tokens, counted, setting))
    return SelectionReport(
        plan=str(path),
        layers=manifest.objective.layers,
        rows=tuple(rows),
        notes=tuple(_notes(manifest, wanted)),
    )


def _checked(selections: Sequence[str], part: str) -> list[str]:
    """Return the selections without repetitions."""
    if part not in PARTS:
        raise UsageError(f"--part {part!r}: choose from {', '.join(PARTS)}")
    for selection in selections:
        if selection not in SELECTIONS:
            raise UsageError(
                f"--selections {selection!r}: choose from {', '.join(SELECTIONS)}"
            )
    if not selections:
        raise UsageError(f"--selections is empty: name some of {', '.join(SELECTIONS)}")
    return list(dict.fromkeys(selections))


def _require_predicted(
    name: str,
    predicted: PartPrediction,
    counted: Sequence[LayerFigures],
    setting: Setting,
) -> None:
    q = setting.routes.q
    found = [LayerDigests.of_figures(layer, q) for layer in counted]
    if findings := differences(name, predicted.layers, found):
        raise ReplayMismatch(findings)


def _row(
    name: str,
    selection: str,
    own: bool,
    part: TokenPart,
    counted: Sequence[LayerFigures],
    setting: Setting,
) -> SelectionFigures:
    manifest = setting.manifest
    legs = [leg for found in counted for leg in (found.transfers, found.combine)]
    transfers = sum(leg.total for leg in legs)
    between = sum(leg.between(setting.layout.domain_G) for leg in legs)
    values = figures.values(
        counted,
        setting.topology.links,
        setting.routes.q,
        setting.message,
        setting.options.link_classes,
    )
    loads = [float(figures.imbalance(found)) for found in counted]
    return SelectionFigures(
        part=name,
        selection=selection,
        predicted=own,
        tokens=part.token_count,
        transfers=transfers,
        between_domains=between,
        between_domains_share=between / transfers if transfers else 0.0,
        link_time_s=float(values["link_time"][manifest.objective.layers]),
        link_tokens=float(values["link_tokens"][manifest.objective.layers]),
        gpu_load_mean=sum(loads) / len(loads),
        gpu_load_worst=max(loads),
    )


def _notes(manifest: Manifest, selections: Sequence[str]) -> list[str]:
    """Say what makes selections equal, or unlike what they could be."""
    plan = plan_of(manifest)
    copied = any(
        np.bincount(slots_GJ[slots_GJ >= 0]).max(initial=0) > 1
        for slots_GJ in plan.slots_LGJ
    )
    if not copied:
        return ["every expert has one copy: selections cannot differ"]
    made_for = f"the plan is made for {manifest.selection}"
    if manifest.selection in selections:
        notes = [f"{made_for}, whose counts of GPU pairs and links are as predicted"]
    else:
        notes = [f"{made_for}: nothing here was held against its prediction"]
    if "weighted" in selections and not plan.split:
        notes.append("the plan holds no weights: weighted takes all copies equally")
    return notes
