"""The independent verifier: is a manifest true, by the witness's own counting."""

from planner.verify.inputs import check_digests, model_of, topology_of
from planner.verify.ledger import Check, VerificationReport
from planner.verify.setting import Setting, setting_of
from planner.verify.verifying import verify_manifest

__all__ = [
    "Check",
    "Setting",
    "VerificationReport",
    "check_digests",
    "model_of",
    "setting_of",
    "topology_of",
    "verify_manifest",
]
