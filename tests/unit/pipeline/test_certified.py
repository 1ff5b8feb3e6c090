"""What certificates prove is what the manifest says and the verifier agrees to."""

import planner
from planner.options import SolveOptions
from planner.verifier import verify_manifest


def test_a_closed_certificate_is_proven_optimal_and_verified() -> None:
    """Law: one expert per GPU, GPU loads: counting copies proves the optimum."""
    counts = {"layers": [0], "top_k": 1, "tokens": [[40, 10, 30]]}
    model = {
        "schema": "moe-model/1",
        "name": "three",
        "layers": 1,
        "moe_layers": [0],
        "experts": 3,
        "top_k": 1,
        "hidden": 64,
        "expert_ffn": 32,
        "shared_ffn": 0,
        "dense_ffn": 0,
        "ffn_matrices": 3,
        "attention": {"heads": 1, "kv_heads": 1, "head_dim": 64},
        "vocab": 100,
    }
    options = SolveOptions(
        objective="gpu_tokens", selection="even", redundant="1", time_limit=5
    )
    manifest = planner.solve("toy-2x2", model=model, trace=counts, options=options)
    assert manifest.objective.value == 30.0
    assert manifest.status == "proven_optimal"
    assert manifest.bound is not None
    assert manifest.bound.certified_exact == "30/1"
    verify_manifest(manifest)
