"""The independent verifier: is a manifest true, by the witness's own counting."""

from planner.verifier.inputs import check_digests, model_of, topology_of
from planner.verifier.ledger import Check, VerificationReport
from planner.verifier.setting import Setting, settings_of
from planner.verifier.verifying import verify_manifest

__all__ = [
    "Check",
    "Setting",
    "VerificationReport",
    "check_digests",
    "model_of",
    "settings_of",
    "topology_of",
    "verify_manifest",
]
