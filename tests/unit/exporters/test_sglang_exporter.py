"""SGLang's file: its bytes, its flags, and what is refused."""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from planner.errors import ManifestError, UsageError
from planner.exporters.sglang import export
from planner.manifest import Manifest, parse_manifest
from planner.topology.graph import ClusterTopology, Gpu
from planner.workload.model_spec import Attention, MoEModelSpec
from tests.oracles.manifest_data import plan_data


def model(**changes: object) -> MoEModelSpec:
    """Three layers, the first dense; three experts."""
    given = {
        "name": "m",
        "layers": 2,
        "moe_layers": (1,),
        "experts": 3,
        "top_k": 2,
        "hidden": 8,
        "expert_ffn": 8,
        "shared_ffn": 0,
        "dense_ffn": 8,
        "ffn_matrices": 3,
        "attention": Attention(heads=1, kv_heads=1, head_dim=8),
        "vocab": 10,
        **changes,
    }
    return MoEModelSpec(**given)


def plan(slots=((0, 1), (1, 2)), **changes: object) -> Manifest:
    """A plan of one layer on two GPUs."""
    data = plan_data()
    data["layers"] = [{"layer": 1, "slots": [list(row) for row in slots]}]
    data["groups"]["ep"] = len(slots)
    return parse_manifest({**data, "selection": "nearest", **changes})


def cluster(hosts: list[str], domains: list[int]) -> ClusterTopology:
    """GPUs by host and domain; nothing else matters to an exporter."""
    gpus = tuple(
        Gpu(id=f"g{i}", host=host, memory_bytes=1, reserved_bytes=0, profile="p")
        for i, host in enumerate(hosts)
    )
    return ClusterTopology(
        name="t",
        graph=nx.DiGraph(),
        gpus=gpus,
        links=(),
        domain_G=np.asarray(domains, dtype=np.int64),
    )


def test_the_file_is_one_bare_key_with_a_row_for_every_hidden_layer(
    tmp_path: Path,
) -> None:
    """Dense layer 0 gets slot p = expert p mod E; layer 1 the plan's slots."""
    result = export(plan(), tmp_path / "out", model())
    assert [path.parent for path in result.files] == [tmp_path / "out"]
    text = result.files[0].read_text()
    assert text == '{"physical_to_logical_map": [\n[0,1,2,0],\n[0,1,1,2]\n]}\n'
    assert json.loads(text) == {"physical_to_logical_map": [[0, 1, 2, 0], [0, 1, 1, 2]]}
    assert list((tmp_path / "out").iterdir()) == list(result.files)


@pytest.mark.parametrize(
    ("selection", "algorithm"), [("nearest", "static"), ("even", "dynamic")]
)
def test_the_flags_name_the_size_the_copies_and_the_choice(
    tmp_path: Path, selection: str, algorithm: str
) -> None:
    """P = E + redundant, and hosts are SGLang's nodes."""
    result = export(
        plan(selection=selection), tmp_path, model(), cluster(["h0", "h1"], [0, 1])
    )
    assert result.launch_flags == (
        f"--ep-size 2 --ep-num-redundant-experts 1 --init-expert-location "
        f"{result.files[0]} --ep-dispatch-algorithm {algorithm} --nnodes 2"
    )


def test_the_notes_say_where_sglang_will_differ(tmp_path: Path) -> None:
    """Hosts that are not the domains make 'nearest' another rule."""
    same = export(plan(), tmp_path, model(), cluster(["a", "b"], [0, 1])).notes
    rack = export(plan(), tmp_path, model(), cluster(["a", "b"], [0, 0])).notes
    assert any("seed 42" in note for note in same)
    assert any("not always use the nearest" in note for note in rack)
    unknown = export(plan(), tmp_path, model()).notes
    assert any("--nnodes" in note for note in unknown)
    even = export(plan(selection="even"), tmp_path, model()).notes
    assert any("equally near" in note for note in even)


def test_every_ep_set_is_an_engine_of_its_own(tmp_path: Path) -> None:
    """ep < G: the file holds one set, and the notes say how often to start."""
    data = {"ep": 1, "replicas": 2}
    groups = {**plan_data()["groups"], **data}
    manifest = plan(slots=((0, 1, 2),))
    alone = parse_manifest(
        {**manifest.model_dump(mode="json", by_alias=True), "groups": groups}
    )
    result = export(alone, tmp_path, model())
    assert "--ep-size 1 --ep-num-redundant-experts 0" in result.launch_flags
    assert any(note.startswith("2 EP sets of 1 GPUs") for note in result.notes)


@pytest.mark.parametrize(
    ("slots", "says"),
    [
        (((0, 1), (2,)), "has 1 slots where others have 2"),
        (((0, 0), (1, 2)), "two copies"),
        (((0, 1), (1, 0)), "no copy of expert 2"),
        (((0, 1), (2, 3)), "outside 0..2"),
    ],
)
def test_what_sglang_cannot_load_is_refused_and_nothing_written(
    tmp_path: Path, slots, says: str
) -> None:
    """Law: no file exists after a refusal."""
    with pytest.raises(ManifestError, match=says):
        export(plan(slots=slots), tmp_path, model())
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_model_is_refused(tmp_path: Path) -> None:
    """Layers or EP rows that do not fit are refused."""
    with pytest.raises(ManifestError, match="MoE layers of the model"):
        export(plan(), tmp_path, model(layers=3, moe_layers=(2,)))
    data = plan_data()
    with pytest.raises(ManifestError, match="one row per GPU"):
        export(plan(groups={**data["groups"], "ep": 1}), tmp_path, model())


def test_weights_cannot_be_told_to_sglang(tmp_path: Path) -> None:
    """Shares per copy have no place in the file."""
    weighted = parse_manifest(plan_data())
    with pytest.raises(UsageError, match="weights"):
        export(weighted, tmp_path, model())
    assert list(tmp_path.iterdir()) == []
