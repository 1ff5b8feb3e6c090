"""Bad cluster files: every hard rule names file, pointer, value, rule, way out."""

import copy
import json
import math

import pytest

from planner import bundled
from planner.errors import TopologyError
from planner.topology.schema import load_topology

TOY = json.loads(bundled.topology_path("toy-2x2").read_text(encoding="utf-8"))


def _changed(path, value):
    file = copy.deepcopy(TOY)
    place = file
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return file


def _refused(source, *parts, **options):
    with pytest.raises(TopologyError) as error:
        load_topology(source, **options)
    for part in parts:
        assert part in str(error.value)
    assert error.value.exit_code == 3
    assert error.value.fix
    return str(error.value)


BAD = {
    "no edges": (("edges",), [], ["/edges", "no edge"]),
    "unknown source": (
        ("edges", 3, "source"),
        "x9",
        ["/edges/3/source", "'x9'", "no node"],
    ),
    "unknown target": (("edges", 3, "target"), "x9", ["/edges/3/target", "'x9'"]),
    "zero bandwidth": (
        ("edges", 3, "bandwidth_gbs"),
        0,
        ["/edges/3/bandwidth_gbs", "> 0"],
    ),
    "negative": (
        ("edges", 0, "bandwidth_gbs"),
        -5,
        ["/edges/0/bandwidth_gbs", "-5", "> 0"],
    ),
    "nan": (("edges", 0, "bandwidth_gbs"), math.nan, ["bandwidth_gbs", "finite"]),
    "infinite": (("edges", 0, "bandwidth_gbs"), math.inf, ["bandwidth_gbs", "finite"]),
    "huge whole": (("edges", 0, "bandwidth_gbs"), 10**400, ["bandwidth_gbs", "finite"]),
    "text": (
        ("edges", 0, "bandwidth_gbs"),
        "400Gbps",
        ["'400Gbps'", "must be a number"],
    ),
    "yes": (("edges", 0, "bandwidth_gbs"), True, ["bandwidth_gbs", "must be a number"]),
    "unknown key": (
        ("edges", 2, "bandwidth"),
        3,
        ["/edges/2/bandwidth", "unknown key"],
    ),
    "unknown graph key": (("graph", "bw"), 3, ["/graph/bw", "unknown key"]),
    "unknown top key": (("extra",), {}, ["/extra", "unknown key"]),
    "kind of node": (("nodes", 0, "kind"), "tpu", ["/nodes/0/kind", "'tpu'", "gpu"]),
    "kind of edge": (("edges", 0, "kind"), "wifi", ["/edges/0/kind", "'wifi'"]),
    "torus": (("edges", 0, "kind"), "ici", ["/edges/0/kind", "torus"]),
    "duplicate id": (("nodes", 1, "id"), "n0/gpu0", ["/nodes/1/id", "used twice"]),
    "memory 0": (("nodes", 0, "memory_bytes"), 0, ["/nodes/0/memory_bytes", "0"]),
    "half a byte": (
        ("nodes", 0, "memory_bytes"),
        0.5,
        ["/nodes/0/memory_bytes", "whole"],
    ),
    "no such profile": (
        ("nodes", 0, "profile"),
        "h900",
        ["/nodes/0/profile", "h100-sxm"],
    ),
    "no memory": (("nodes", 0, "profile"), None, ["/nodes/0/memory_bytes", "missing"]),
    "reserved": (
        ("nodes", 0, "reserved_bytes"),
        8 * 10**10,
        ["/nodes/0/reserved_bytes"],
    ),
    "no host": (("nodes", 0, "host"), None, ["/nodes/0/host", "required"]),
    "major": (("schema",), "moe-topology/2", ["/schema", "moe-topology/2", "must be"]),
    "no schema": (("schema",), None, ["/schema", "must be moe-topology/1"]),
    "undirected": (("directed",), False, ["/directed"]),
    "multigraph": (("multigraph",), True, ["/multigraph"]),
    "fast NIC": (
        ("edges", 3, "bandwidth_gbs"),
        401,
        ["/edges/3/bandwidth_gbs", "3.2 Tb/s"],
    ),
    "loop": (("edges", 3, "target"), "n0/nic0", ["/edges/3", "to itself"]),
    "efficiency": (("edges", 3, "efficiency"), 1.2, ["/edges/3/efficiency", "<= 1"]),
    "endpoint": (
        ("graph", "routing"),
        {"endpoint": "magic"},
        ["/graph/routing/endpoint"],
    ),
    "nodes missing": (("nodes",), [], ["/nodes"]),
    "two lists": (("links",), [], ["/links", "two lists"]),
    "workload": (("workload",), {"modell": "x"}, ["/workload/modell", "unknown key"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_broken_rule_is_named_with_its_place_and_value(case):
    """One clear message for each broken rule of a cluster file."""
    path, value, parts = BAD[case]
    _refused(_changed(path, value), "cluster", *parts, where="cluster")


def test_an_edge_given_twice_is_refused_also_as_the_way_back():
    """A second edge of the same direction would silently replace the first."""
    back = {"source": "sw0", "target": "n0/nic0", "kind": "ib", "bandwidth_gbs": 50}
    file = _changed(("edges",), [*TOY["edges"], back])
    _refused(file, "/edges/12", "given twice", "sw0 -> n0/nic0")


def test_the_old_key_links_is_named_in_pointers():
    """A file that says `links` is read, and its mistakes are found under `links`."""
    file = copy.deepcopy(TOY)
    file["links"] = file.pop("edges")
    assert len(load_topology(file).links) == 24
    file["links"][3]["source"] = "x9"
    _refused(file, "/links/3/source")


def test_a_gpu_without_a_path_is_refused():
    """A GPU that reaches no other GPU cannot take part in a plan."""
    lone = {"id": "n9/gpu0", "kind": "gpu", "host": "n9", "profile": "h100-sxm-80g"}
    file = _changed(("nodes",), [*TOY["nodes"], lone])
    _refused(file, "/nodes/11", "n9/gpu0", "no path to another GPU")


def test_a_cluster_without_gpus_is_refused():
    """Nothing can be placed on switches alone."""
    file = _changed(("nodes",), [{**n, "state": "down"} for n in TOY["nodes"]])
    _refused(file, "no GPU that is up")


def test_a_bare_name_lists_the_bundled_ones():
    """A misspelt name is answered with the names that exist."""
    message = _refused("toy-2x3", "'toy-2x3'", "neither a file nor a bundled")
    assert all(name in message for name in bundled.topology_names())


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path):
    """Both name the path; neither is mistaken for bad JSON."""
    _refused(tmp_path / "none.json", "none.json", "does not exist")
    _refused(str(tmp_path / "none.json"), "does not exist")
    _refused(tmp_path, str(tmp_path), "is a directory")


TEXTS = {
    "truncated": ('{"schema": "moe-topology/1", "nodes": [', "ends too early"),
    "empty": ("  \n", "is empty"),
    "prose": ("cluster of eight\n", "is not JSON"),
    "list": ("[1, 2]", "is not a JSON object"),
    "nested": ("[" * 100_000, "nested too deeply"),
    "digits": ('{"schema": ' + "9" * 5000 + "}", "too many digits"),
    "twice": (
        '{"schema": "moe-topology/1", "nodes": [{"id": "a", "id": "b"}]}',
        "/nodes/0",
    ),
    "twice on top": ('{"nodes": [], "nodes": []}', "appears twice"),
    "exponent": ('{"schema": "moe-topology/1", "nodes": 1e999}', "/nodes"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_text_that_is_no_cluster_is_refused_with_its_file(case, tmp_path):
    """The file is named, and what is wrong with it as text."""
    text, part = TEXTS[case]
    path = tmp_path / "cluster.json"
    path.write_text(text, encoding="utf-8")
    _refused(path, str(path), part)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "1e-999"])
def test_numbers_that_are_no_doubles_are_refused_in_files(number, tmp_path):
    """JSON may say 1e999, and Python reads NaN: neither is a bandwidth."""
    text = json.dumps(TOY).replace(
        '"bandwidth_gbs": 64', f'"bandwidth_gbs": {number}', 1
    )
    path = tmp_path / "cluster.json"
    path.write_text(text, encoding="utf-8")
    _refused(path, "/edges/2/bandwidth_gbs")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """A Parquet file given as a topology says so."""
    path = tmp_path / "cluster.json"
    path.write_bytes(b"PAR1\xff\xfe\x00")
    _refused(path, "not UTF-8")


MATRICES = [
    "a100-8gpu-4nic-partial-nic.txt",
    "h20-8gpu-8nic-sglang-issue24966.txt",
    "v100-4gpu-mesh-nv1nv2.txt",
]


@pytest.mark.parametrize("name", MATRICES)
def test_output_of_nvidia_smi_is_recognised(name, shared_data):
    """The message names the verb that imports it."""
    path = shared_data / "topologies" / name
    _refused(
        path, name, "nvidia-smi topo -m", "planner topology import --from nvidia-smi"
    )


def test_a_small_matrix_of_nvidia_smi_is_recognised(tmp_path):
    """Also without any data at hand: header, TABs, legend."""
    path = tmp_path / "topo.txt"
    path.write_text(
        "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-47\n", encoding="utf-8"
    )
    _refused(path, "planner topology import --from nvidia-smi")


def test_an_inline_value_that_is_too_deep_is_refused():
    """Depth is checked before anything walks the value."""
    deep = {}
    for _ in range(5000):
        deep = {"graph": deep}
    _refused({"schema": "moe-topology/1", "graph": deep}, "nested too deeply")


def test_a_set_is_no_json():
    """Inline dicts hold JSON values only."""
    _refused({"schema": "moe-topology/1", "nodes": 1, ("a",): 2}, "not a JSON object")


GENERATOR = {
    "kind": "rail_fat_tree",
    "nodes": 4,
    "gpus_per_node": 2,
    "profile": "p",
    "nvlink": {"bandwidth_gbs": 450},
    "pcie_gbs": 64,
    "nic_gbs": 50,
    "su_nodes": 4,
    "ports": 64,
    "spines": 2,
}
BAD_GENERATORS = {
    "kind": (
        {"kind": "hypercube"},
        ["/generator/kind", "'hypercube'", "rail_fat_tree"],
    ),
    "no kind": ({"kind": None}, ["/generator/kind"]),
    "missing": ({"nodes": None}, ["/generator/nodes"]),
    "unknown": ({"leafs": 3}, ["/generator/leafs", "unknown key"]),
    "zero": ({"nodes": 0}, ["/generator/nodes"]),
    "broken SU": ({"nodes": 6}, ["/generator/nodes", "multiple of su_nodes"]),
    "leaf ports": ({"ports": 5}, ["/generator/su_nodes", "needs 6 ports", "has 5"]),
    "uplinks": ({"uplink_cables": 40, "ports": 83}, ["needs 84 ports of a leaf"]),
    "spine ports": (
        {"nodes": 64, "gpus_per_node": 8, "ports": 64},
        ["/generator/spines", "needs 128 ports of a spine"],
    ),
    "too large": ({"nodes": 16000}, ["/generator/nodes", "more than 16384 GPUs"]),
    "far too large": ({"nodes": 10**9}, ["/generator/nodes", "16384"]),
    "tiers": ({"tiers": 3}, ["/generator/pod_su", "must divide"]),
    "cores": ({"tiers": 3, "pod_su": 1, "cores": 3}, ["/generator/cores", "multiple"]),
    "core ports": (
        {"tiers": 3, "pod_su": 1, "cores": 2, "core_cables": 65},
        ["/generator/core_cables", "needs 65 ports"],
    ),
    "pods in two tiers": ({"cores": 2}, ["/generator/tiers", "must be 3"]),
    "profile": ({"profile": "q"}, ["profile", "'q'"]),
    "speed": ({"nic_gbs": 401}, ["3.2 Tb/s"]),
}


@pytest.mark.parametrize("case", BAD_GENERATORS)
def test_parameters_of_a_generator_are_checked(case):
    """A generator file fails like a long one: pointer, value, rule, way out."""
    change, parts = BAD_GENERATORS[case]
    file = {
        "schema": "moe-topology/1",
        "graph": {"profiles": {"p": {"memory_bytes": 1000}}},
        "generator": {**GENERATOR, **change},
    }
    _refused(file, *parts)


FAT = {
    "kind": "fat_tree",
    "nodes": 4,
    "gpus_per_node": 4,
    "profile": "p",
    "nvlink": {"bandwidth_gbs": 450},
    "pcie_gbs": 64,
    "nic_gbs": 50,
    "hosts_per_leaf": 2,
    "ports": 8,
    "spines": 1,
}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"nics_per_node": 3}, ["/generator/nics_per_node", "must divide"]),
        ({"spines": 0}, ["/generator/spines", "join the 2 leaves"]),
        ({"hosts_per_leaf": 8}, ["/generator/hosts_per_leaf", "needs 9 ports"]),
        ({"uplink_cables": 5}, ["/generator/spines", "needs 10 ports of a spine"]),
    ],
)
def test_parameters_of_a_fat_tree_are_checked(change, parts):
    """Ports are counted on leaves and on spines."""
    file = {
        "schema": "moe-topology/1",
        "graph": {"profiles": {"p": {"memory_bytes": 1000}}},
        "generator": {**FAT, **change},
    }
    _refused(file, *parts)


def test_a_mesh_of_one_gpu_is_refused():
    """A full mesh needs two ends."""
    file = {
        "schema": "moe-topology/1",
        "graph": {"profiles": {"p": {"memory_bytes": 1000}}},
        "generator": {
            "kind": "full_mesh",
            "gpus_per_node": 1,
            "profile": "p",
            "pair_gbs": 64,
        },
    }
    _refused(file, "/generator/gpus_per_node", "at least 2")
