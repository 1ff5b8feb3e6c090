"""Check a plan again, and that its inputs are the ones it was made from."""

from pathlib import Path

from planner.manifest import Manifest
from planner.verifier import VerificationReport, check_digests, verify_manifest


def verify(plan: str | Path) -> VerificationReport:
    """Check every rule and claim of a manifest, independently of what made it.

    Raises
    ------
    ManifestError
        If it does not fit its schema, or an input has another digest.
    VerificationError
        If it breaks a rule or one of its own claims.
    """
    return verify_manifest(Path(plan))


def check_inputs(manifest: Manifest, folder: Path) -> None:
    """Refuse inputs that are missing or have another digest.

    Raises
    ------
    ManifestError
        Naming the input and both digests.
    """
    check_digests(manifest, folder)
