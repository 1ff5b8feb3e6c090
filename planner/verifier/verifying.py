"""Verification: every rule and claim of a manifest, counted again.

Nothing here knows how plans are made or judged: the counts come from the witness,
in integers and fractions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.manifest import Manifest, parse_manifest, read_manifest
from planner.verifier.claims import check_claims
from planner.verifier.inputs import (
    Overrides,
)
from planner.verifier.ledger import Ledger, VerificationReport
from planner.verifier.memory import check_memory
from planner.verifier.setting import Setting, setting_of
from planner.verifier.traffic import (
    check_gpus,
    check_prediction,
    count_again,
    tokens_of,
)
from planner.verifier.values import check_imbalance, check_objective


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
    setting = setting_of(manifest, Path(folder), overrides, ledger)
    _check_figures(setting, ledger)
    ledger.raise_findings()
    return ledger.report()


def _check_figures(setting: Setting, ledger: Ledger) -> None:
    manifest, parts = setting.manifest, setting.parts
    check_memory(setting, ledger)
    sizes = manifest.prediction.message_bytes
    ledger.equal(
        "message bytes",
        "prediction.message_bytes",
        (sizes.dispatch, sizes.combine),
        setting.message,
    )
    ledger.equal("homes", "homes", manifest.homes, parts.homes.policy)
    planning = count_again(setting, parts.planning)
    check_prediction(
        "prediction", manifest.prediction, setting, parts.planning, planning, ledger
    )
    check_gpus(manifest.prediction.gpus, planning, ledger)
    check_objective("objective", manifest.objective, setting, planning, ledger)
    check_imbalance("imbalance", manifest.imbalance, setting, planning, ledger)
    check_claims(setting, planning, ledger)
    ledger.expect(
        "held-out part",
        (manifest.holdout is None) == (parts.holdout is None),
        "holdout: the trace has a held-out part and the manifest none, or the reverse",
    )
    if manifest.holdout is not None and parts.holdout is not None:
        claimed, where = manifest.holdout, "holdout"
        unseen = count_again(setting, parts.holdout)
        check_prediction(
            where, claimed.prediction, setting, parts.holdout, unseen, ledger
        )
        check_objective(
            f"{where}.objective", claimed.objective, setting, unseen, ledger
        )
        check_imbalance(
            f"{where}.imbalance", claimed.imbalance, setting, unseen, ledger
        )
        ledger.equal(
            "totals",
            f"{where}.tokens",
            claimed.tokens,
            float(tokens_of(parts.holdout)),
        )
    ledger.not_checked.append("baselines: reports about other plans, taken as they are")
    ledger.not_checked.append("provenance: who made the plan, and how long it took")
