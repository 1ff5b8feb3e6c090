"""``--policy free``: the slots of a GPU are shared out among the layers."""

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planner
from planner.errors import ManifestError, UsageError, VerificationError
from planner.manifest import Manifest, manifest_data, write_manifest
from planner.options import SolveOptions
from planner.pipeline import explain, export, load
from planner.verifier import verify_manifest
from tests.instances import cluster, small_model

HOT = [60, 1, 1, 1, 1, 1, 1, 1]
FLAT = [4] * 8
AMPLE = 10**9
EXPERT_BYTES = 196_608


def hosts(memory: int = AMPLE) -> dict[str, Any]:
    """Return two hosts of two GPUs with this much memory each."""
    found = cluster([2, 2])
    for node in found["nodes"]:
        if node["kind"] == "gpu":
            node["memory_bytes"] = memory
    return found


def given(loads: Sequence[Sequence[int]], memory: int = AMPLE) -> dict[str, Any]:
    """Return cluster, model and trace of layers with these loads per expert."""
    layers = list(range(len(loads)))
    model = small_model(8) | {"layers": len(layers), "moe_layers": layers}
    tokens = [list(row) for row in loads]
    counts = {"layers": layers, "top_k": 1, "tokens": tokens}
    return {"topology": hosts(memory), "model": model, "trace": counts}


def asked(**options: Any) -> SolveOptions:
    """Return options under which GPU loads decide."""
    known = {"selection": "even", "objective": "gpu_tokens", "deterministic": True}
    known |= {"kv_tokens": 1024, "batch_tokens": 1, "policy": "free"}
    return SolveOptions(**(known | options))


def planned(
    loads: Sequence[Sequence[int]], memory: int = AMPLE, **options: Any
) -> Manifest:
    """Plan layers with these loads."""
    return planner.solve(**given(loads, memory), options=asked(**options))


def slots_of(manifest: Manifest) -> list[int]:
    """Return the slots of a GPU in every layer."""
    return [len(layer.slots[0]) for layer in manifest.layers]


def needed(loads: Sequence[Sequence[int]], redundant: str) -> int:
    """Return the bytes of a GPU with equal slots in every layer."""
    options = asked(policy="uniform", redundant=redundant)
    instance = load(**given(loads), options=options).instance
    return int(instance.memory_bytes_G[0])


def test_the_hot_layer_gets_the_copies() -> None:
    """By hand: equal loads gain nothing from a third slot, the hot layer from a fourth.

    Expert 0 is everywhere, 15 each. Equal slots leave eight for seven experts: six stay
    whole, two of them on one GPU, 17 + 8 pairs. With 4 + 2 slots one expert is
    quartered, two are halved and four whole: 15 + 1/4 + 1/2 + 1 + 8.
    """
    found = planned([HOT, FLAT], redundant="4")
    assert slots_of(found) == [4, 2]
    assert Fraction(found.objective.value_exact) == Fraction(67, 4) + 8
    uniform = planned([HOT, FLAT], redundant="4", policy="uniform")
    assert Fraction(uniform.objective.value_exact) == 25
    assert found.inputs.options.values["redundant"] == 4
    assert any("4 in layers 0" in note for note in found.provenance.notes)


@pytest.mark.parametrize("layers", ["sequential", "worst_layer"])
@pytest.mark.parametrize("seed", range(3))
def test_no_other_shares_are_better(seed: int, layers: str) -> None:
    """Law: as good as the best way to share out as many slots, each layer alone.

    To 1 %: a layer's search depends on its place. Never worse than equal slots.
    """
    rng = np.random.default_rng(seed)
    loads = [
        sorted(rng.integers(1, 60, 8).tolist(), reverse=True),
        (rng.lognormal(2.0, 1.3, 8).astype(int) + 1).tolist(),
        FLAT,
    ]
    alone = {
        (at, slots): Fraction(
            planned(
                [row], policy="uniform", redundant=str(4 * slots - 8), layers=layers
            ).objective.value_exact
        )
        for at, row in enumerate(loads)
        for slots in range(2, 8)
    }
    whole = max if layers == "worst_layer" else sum
    best = min(
        whole(alone[at, slots] for at, slots in enumerate(shares))
        for shares in product(range(2, 8), repeat=3)
        if sum(shares) <= 9
    )
    found = planned(loads, redundant="4", layers=layers)
    assert Fraction(found.objective.value_exact) <= best * Fraction(101, 100)
    equal = planned(loads, redundant="4", layers=layers, policy="uniform")
    assert found.objective.value <= equal.objective.value * (1 + 1e-12)
    assert sum(slots_of(found)) <= 9


def test_memory_ends_it_and_the_verifier_counts_it(tmp_path: Path) -> None:
    """Law: with room for five slots in two layers, five are taken of six asked for."""
    five = needed([HOT, FLAT], "4") - EXPERT_BYTES
    found = planned([HOT, FLAT], five, redundant="4")
    assert slots_of(found) == [3, 2]
    assert any("memory holds 5 slots" in note for note in found.provenance.notes)
    assert {gpu.memory_bytes for gpu in found.prediction.gpus} == {five}
    verify_manifest(found, folder=tmp_path)
    data = manifest_data(found)
    for row in data["layers"][1]["slots"]:
        row.append(next(expert for expert in range(8) if expert not in row))
    with pytest.raises(VerificationError, match="memory"):
        verify_manifest(data, folder=tmp_path)


def test_a_gpu_with_less_memory_decides_for_all_and_is_named() -> None:
    """By hand: room for five slots in two layers on one GPU, for six on the others."""
    asked_for = given([HOT, FLAT])
    five = needed([HOT, FLAT], "4") - EXPERT_BYTES
    for node in asked_for["topology"]["nodes"]:
        if node["id"] == "h1/g0":
            node["memory_bytes"] = five
        elif node["kind"] == "gpu":
            node["memory_bytes"] = five + EXPERT_BYTES
    found = planner.solve(**asked_for, options=asked(redundant="4"))
    assert slots_of(found) == [3, 2]
    (says,) = [note for note in found.provenance.notes if "decides" in note]
    assert "h1/g0 with room for 5 in all layers, others for up to 6" in says


def test_auto_takes_what_gains() -> None:
    """Law: slots that gain nothing are not taken, in no layer."""
    found = planned([HOT, FLAT])
    assert slots_of(found)[1] == 2
    assert slots_of(found)[0] >= 3
    assert found.objective.value <= 26


def test_the_bound_is_one_that_any_number_of_slots_has(tmp_path: Path) -> None:
    """Law: only what does not depend on a layer's slots is proven again."""
    found = planned([FLAT, FLAT], redundant="4")
    verify_manifest(found, folder=tmp_path)
    if found.bound is not None:
        assert found.bound.method == "mean"


def test_gpus_of_a_layer_have_as_many_slots(tmp_path: Path) -> None:
    """Law: memory is counted by the first GPU's slots, so all must have as many."""
    data = manifest_data(planned([HOT, FLAT], redundant="4"))
    row = data["layers"][1]["slots"][3]
    row.append(next(expert for expert in range(8) if expert not in row))
    with pytest.raises(VerificationError, match="slots, others have"):
        verify_manifest(data, folder=tmp_path)


def test_engines_do_not_load_unequal_layers(tmp_path: Path) -> None:
    """Law: one clear error, and nothing is written (rule 29)."""
    path = tmp_path / "plan.json"
    write_manifest(planned([HOT, FLAT], redundant="4"), path)
    with pytest.raises(ManifestError, match="2 to 4 slots per GPU"):
        export(path, engine="sglang", output=tmp_path / "engine")
    assert json.loads(path.read_text())["inputs"]["options"]["values"]["policy"] == (
        "free"
    )
    assert planner.verify(path).comparisons > 0
    with pytest.raises(UsageError, match="--policy uniform"):
        explain(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kv_tokens": None, "mem_fraction": 0.9}, "--mem-fraction"),
        ({"imbalance_cap": "1.2x"}, "relative"),
        ({"constraints": {"pins": [{"experts": [1], "at": ["h0/g1"]}]}}, "--previous"),
        ({"redundant": "3"}, "do not divide"),
    ],
)
def test_what_it_does_not_go_with_is_refused(
    changes: dict[str, Any], says: str
) -> None:
    """Law: one clear error that names the other flag."""
    with pytest.raises(UsageError, match=says):
        planned([HOT, FLAT], **changes)
