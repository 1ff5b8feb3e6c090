"""The manifest ``moe-plan/1``: schema, files, digests and figures.

Described for readers in ``docs/manifest.md``.
"""

from planner.manifest.document import SCHEMA, Manifest, json_schema, slots_array
from planner.manifest.figures import (
    LayerCounts,
    digest_of_counts,
    digest_of_pairs,
    exact_text,
    gap_of,
    gpu_predictions,
    layer_prediction,
    objective_report,
)
from planner.manifest.files import (
    canonical_json,
    digest_of_file,
    digest_of_json,
    digest_of_manifest,
    manifest_data,
    parse_manifest,
    pretty_json,
    read_manifest,
    write_manifest,
    write_text_atomically,
)

__all__ = [
    "SCHEMA",
    "LayerCounts",
    "Manifest",
    "canonical_json",
    "digest_of_counts",
    "digest_of_file",
    "digest_of_json",
    "digest_of_manifest",
    "digest_of_pairs",
    "exact_text",
    "gap_of",
    "gpu_predictions",
    "json_schema",
    "layer_prediction",
    "manifest_data",
    "objective_report",
    "parse_manifest",
    "pretty_json",
    "read_manifest",
    "slots_array",
    "write_manifest",
    "write_text_atomically",
]
