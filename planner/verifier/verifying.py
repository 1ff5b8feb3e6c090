"""Verification: every rule and claim of a manifest, counted again.

Nothing here knows how plans are made or judged: the counts come from the witness,
in integers and fractions.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from planner.manifest import Manifest, parse_manifest, read_manifest
from planner.manifest.schema import PartPrediction
from planner.verifier.claims import check_claims
from planner.verifier.inputs import (
    Overrides,
)
from planner.verifier.ledger import Ledger, VerificationReport
from planner.verifier.memory import check_context, check_memory
from planner.verifier.setting import Setting, settings_of
from planner.verifier.traffic import (
    check_gpus,
    check_prediction,
    count_again,
    tokens_of,
)
from planner.verifier.values import (
    Counted,
    check_imbalance,
    check_objective,
    check_own,
)


def verify_manifest(
    source: str | Path | Mapping[str, Any] | Manifest,
    *,
    folder: str | Path = ".",
    topology: str | Path | None = None,
    trace: str | Path | None = None,
) -> VerificationReport:
    """Check a manifest against its inputs, the rules and its own claims.

    Parameters
    ----------
    source
        A manifest, its file, or its JSON values.
    folder
        Folder that recorded paths are relative to, where ``source`` is no file.
    topology, trace
        Files to read where the recorded paths no longer hold; the digests must
        still be those of the manifest.

    Raises
    ------
    ManifestError
        Not a manifest, or an input is missing or has another digest.
    VerificationError
        A rule or a claim is broken. Carries all findings of the first stage that
        has any: the traffic of slots that make no plan is not counted.
    """
    if isinstance(source, Manifest):
        manifest = source
    elif isinstance(source, Mapping):
        manifest = parse_manifest(source)
    else:
        manifest, folder = read_manifest(source), Path(source).parent
    overrides = Overrides(
        topology=None if topology is None else Path(topology),
        trace=None if trace is None else Path(trace),
    )
    ledger = Ledger()
    settings = settings_of(manifest, Path(folder), overrides, ledger)
    _check_figures(settings, ledger)
    ledger.raise_findings()
    return ledger.report()


def _check_figures(settings: Sequence[Setting], ledger: Ledger) -> None:
    first, manifest = settings[0], settings[0].manifest
    check_memory(settings, ledger)
    sizes = manifest.prediction.message_bytes
    ledger.equal(
        "message bytes",
        "prediction.message_bytes",
        (sizes.dispatch, sizes.combine),
        first.message,
    )
    ledger.equal("homes", "homes", manifest.homes, first.parts.homes.policy)
    planning = [
        (setting, count_again(setting, setting.parts.planning)) for setting in settings
    ]
    _check_part("", manifest.prediction, planning, ledger)
    check_gpus(manifest.prediction.gpus, planning[0][1], ledger)
    tokens = [tokens_of(setting.parts.planning) for setting in settings]
    check_objective("objective", manifest.objective, planning, tokens, ledger)
    check_imbalance("imbalance", manifest.imbalance, planning, ledger)
    check_claims(planning, ledger)
    for setting, tokens_seen in zip(settings, tokens, strict=True):
        check_context(setting, tokens_seen, ledger)
    _check_holdout(settings, ledger)
    ledger.not_checked.append("baselines: reports about other plans, taken as they are")
    ledger.not_checked.append("provenance: who made the plan, and how long it took")


def _check_holdout(settings: Sequence[Setting], ledger: Ledger) -> None:
    claimed = settings[0].manifest.holdout
    parts = [setting.parts.holdout for setting in settings]
    complete = all(part is not None for part in parts)
    ledger.expect(
        "held-out part",
        (claimed is not None) == complete,
        "holdout: the trace has a held-out part and the manifest none, or the reverse",
    )
    if claimed is None or not complete:
        return
    unseen = [
        (setting, count_again(setting, part))
        for setting, part in zip(settings, parts, strict=True)
        if part is not None
    ]
    tokens = [tokens_of(part) for part in parts if part is not None]
    _check_part("holdout", claimed.prediction, unseen, ledger)
    check_objective("holdout.objective", claimed.objective, unseen, tokens, ledger)
    check_imbalance("holdout.imbalance", claimed.imbalance, unseen, ledger)
    total = float(sum(tokens, Fraction(0)))
    ledger.equal("totals", "holdout.tokens", claimed.tokens, total)


def _check_part(
    part: str, first: PartPrediction, counted: Counted, ledger: Ledger
) -> None:
    """Compare one part's counts: the first workload's and those of the others."""
    for at, (setting, layers) in enumerate(counted):
        tokens = setting.parts.holdout if part else setting.parts.planning
        where, claimed = part or "prediction", first
        if tokens is None:
            continue
        if at:
            record = setting.manifest.workloads[setting.name]
            own = record.holdout if part else record.planning
            where = f"workloads.{setting.name}.{part or 'planning'}"
            ledger.expect("workloads", own is not None, f"{where}: is missing")
            if own is None:
                continue
            claimed = own.prediction
            check_own(where, own, (setting, layers), tokens_of(tokens), ledger)
        check_prediction(where, claimed, setting, tokens, layers, ledger)
