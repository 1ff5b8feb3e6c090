"""The clusters that ship with the planner: closed-form counts, sources, routes."""

import json
from collections import Counter

import jsonschema
import numpy as np
import pytest

from planner import bundled
from planner.topology.json_schema import json_schema
from planner.topology.paths import build_routes
from planner.topology.schema import load_json, load_topology

SUPERPOD = "superpod-b200-16su"


def _kinds(topology):
    nodes = topology.graph.nodes(data=True)
    return Counter(
        f"switch{data['tier']}" if data["kind"] == "switch" else data["kind"]
        for _, data in nodes
    )


def _classes(topology):
    return Counter(link.link_class for link in topology.links)


def _cables(topology, link_class):
    return sum(k.cables for k in topology.links if k.link_class == link_class)


def _egress_gbs(topology, link_class):
    return {
        k.nominal_bytes_per_s / 10**9
        for k in topology.links
        if k.link_class == link_class
    }


def test_these_clusters_ship():
    """The names that solve, describe and the service offer."""
    assert bundled.topology_names() == [
        "dgx-h100-1",
        "h100-18x8-rail",
        "h100-40x8-rail",
        "h100-4x8-rail",
        "h100-8x8-rail",
        "h200-1856x8-rail",
        "paper-h100-32x8-hdr",
        "paper-h100-32x8-hdr-rail8",
        SUPERPOD,
        "superpod-h100-1su",
        "toy-2x2",
    ]


@pytest.mark.parametrize("name", bundled.topology_names())
def test_every_number_has_a_source(name):
    """Provenance names every bandwidth, every profile and the switches."""
    file = json.loads(bundled.topology_path(name).read_text(encoding="utf-8"))
    entries = file["graph"]["provenance"]
    said = " ".join(entry["field"] for entry in entries)
    assert all(entry["source"] and entry["basis"] for entry in entries)
    assert "profiles" in said
    if "generator" in file:
        shape = {"pod_su", "su_nodes", "spines"} & file["generator"].keys()
        wanted = ("nvlink.bandwidth_gbs", "nic_gbs", "pcie_gbs", *shape)
    else:
        kinds = {edge["kind"] for edge in file["edges"]}
        wanted = [f"edges[kind={kind}].bandwidth_gbs" for kind in kinds]
    assert all(field in said for field in wanted)


@pytest.mark.parametrize("name", bundled.topology_names())
def test_bundled_files_fit_the_published_schema(name):
    """The JSON Schema accepts what the planner ships."""
    file = json.loads(bundled.topology_path(name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(json_schema()).validate(file)


def test_the_published_schema_is_current():
    """topologies/topology.schema.json is what the models generate."""
    path = bundled.folder("topologies") / "topology.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize(
    "change", [{"nodes": []}, {"edges": [{"source": "a"}]}, {"extra": 1}]
)
def test_the_published_schema_refuses_what_the_planner_refuses(change):
    """A schema that accepts everything would pass the test above."""
    file = json.loads(bundled.topology_path("toy-2x2").read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json_schema()).validate({**file, **change})


def test_toy_2x2_is_two_hosts_of_two_gpus():
    """β by hand: 450 · 0.82, 64 · 0.75, 50 · 0.9 GB/s."""
    topology = load_topology("toy-2x2")
    assert [gpu.id for gpu in topology.gpus] == [
        "n0/gpu0",
        "n0/gpu1",
        "n1/gpu0",
        "n1/gpu1",
    ]
    assert topology.domain_G.tolist() == [0, 0, 1, 1]
    assert {gpu.memory_bytes for gpu in topology.gpus} == {80 * 10**9}
    assert {k.kind: k.bytes_per_s for k in topology.links} == {
        "nvlink": 369 * 10**9,
        "pcie": 48 * 10**9,
        "ib": 45 * 10**9,
    }
    assert set(_classes(topology).values()) == {4}
    assert not topology.warnings


def test_dgx_h100_is_eight_gpus_on_one_nvswitch():
    """18 NVLinks of 25 GB/s per GPU."""
    topology = load_topology("dgx-h100-1")
    assert _kinds(topology) == {"gpu": 8, "nvswitch": 1}
    assert len(topology.domains) == 1
    assert _egress_gbs(topology, "nvlink:gpu>nvswitch") == {18 * 25}
    assert build_routes(topology).q == 1


def test_h100_4x8_rail_has_as_many_cables_up_as_down():
    """8 rail leaves of 4 hosts, 4 spines, one NDR cable per leaf-spine pair."""
    topology = load_topology("h100-4x8-rail")
    assert _kinds(topology) == {
        "gpu": 32,
        "nic": 32,
        "nvswitch": 4,
        "switch0": 8,
        "switch1": 4,
    }
    assert set(_classes(topology).values()) == {32}
    assert _egress_gbs(topology, "ib:switch0>switch1") == {50}
    assert _egress_gbs(topology, "pcie:gpu>nic") == {64}
    edges = topology.edge_index
    for host in range(4):
        for rail in range(8):
            assert (f"n{host}/nic{rail}", f"leaf{rail}") in edges
    assert build_routes(topology).q == 4


def test_h100_8x8_rail_doubles_hosts_and_spines():
    """8 rail leaves of 8 hosts, 8 spines: 64 cables up, 64 down, shares of 1/8."""
    topology = load_topology("h100-8x8-rail")
    assert _kinds(topology) == {
        "gpu": 64,
        "nic": 64,
        "nvswitch": 8,
        "switch0": 8,
        "switch1": 8,
    }
    assert set(_classes(topology).values()) == {64}
    assert _cables(topology, "ib:nic>switch0") == 64
    assert _cables(topology, "ib:switch0>switch1") == 64
    assert build_routes(topology).q == 8


def test_one_su_of_h100_has_256_cables_to_hosts_and_to_spines():
    """32 hosts, 8 leaves, 4 spines: 8 cables of 50 GB/s between leaf and spine."""
    topology = load_topology("superpod-h100-1su")
    assert _kinds(topology) == {
        "gpu": 256,
        "nic": 256,
        "nvswitch": 32,
        "switch0": 8,
        "switch1": 4,
    }
    assert _cables(topology, "ib:nic>switch0") == 256
    assert _cables(topology, "ib:switch0>switch1") == 256
    assert _egress_gbs(topology, "ib:switch0>switch1") == {8 * 50}


def test_the_papers_cluster_with_eight_rails_has_200_gb_s_per_host():
    """8 HDR ports per host: 16 leaves (2 per rail), 8 spines, 2 cables per pair."""
    topology = load_topology("paper-h100-32x8-hdr-rail8")
    assert _kinds(topology) == {
        "gpu": 256,
        "nic": 256,
        "nvswitch": 32,
        "switch0": 16,
        "switch1": 8,
    }
    ports = [k for k in topology.links if k.link_class == "ib:nic>switch0"]
    assert sum(k.nominal_bytes_per_s for k in ports) == 8 * 800 * 10**9
    assert _cables(topology, "ib:switch0>switch1") == 256
    assert _egress_gbs(topology, "ib:switch0>switch1") == {2 * 25}


def test_the_papers_cluster_has_25_gb_s_per_host():
    """One HDR port per host: 25 GB/s out of a node, 800 GB/s out of all."""
    topology = load_topology("paper-h100-32x8-hdr")
    assert _kinds(topology) == {
        "gpu": 256,
        "nic": 32,
        "nvswitch": 32,
        "pcie_switch": 32,
        "switch0": 2,
        "switch1": 1,
    }
    ports = [k for k in topology.links if k.link_class == "ib:nic>switch0"]
    assert {k.nominal_bytes_per_s for k in ports} == {25 * 10**9}
    assert sum(k.nominal_bytes_per_s for k in ports) == 800 * 10**9
    assert _cables(topology, "ib:switch0>switch1") == 32
    assert {gpu.memory_bytes for gpu in topology.gpus} == {64 * 10**9}
    assert any("assumed" in warning for warning in topology.warnings)


@pytest.mark.parametrize(
    ("name", "generator"),
    [
        (
            "h100-4x8-rail",
            {
                "kind": "rail_fat_tree",
                "nodes": 4,
                "profile": "p",
                "nvlink": {"bandwidth_gbs": 450, "cables": 18, "planes": 4},
                "pcie_gbs": 64,
                "nic_gbs": 50,
                "su_nodes": 4,
                "spines": 4,
            },
        ),
        (
            "paper-h100-32x8-hdr",
            {
                "kind": "fat_tree",
                "nodes": 32,
                "profile": "p",
                "nvlink": {"bandwidth_gbs": 450, "cables": 18, "planes": 4},
                "pcie_gbs": 64,
                "nic_gbs": 25,
                "hosts_per_leaf": 16,
                "ports": 40,
                "spines": 1,
                "uplink_cables": 16,
            },
        ),
    ],
)
def test_written_out_files_are_what_the_generators_make(name, generator):
    """The long files and the short way to write them agree link by link."""
    short = load_topology(
        {
            "schema": "moe-topology/1",
            "generator": generator,
            "graph": {"profiles": {"p": {"memory_bytes": 1}}},
        }
    )
    assert short.links == load_topology(name).links


@pytest.fixture(scope="module")
def superpod():
    """4,096 GPUs with their routes."""
    return build_routes(load_topology(SUPERPOD))


def test_the_superpod_has_128_leaves_128_spines_64_cores(superpod):
    """4,096 cables in each of three stages, no switch above 64 ports."""
    topology = superpod.topology
    assert _kinds(topology) == {
        "gpu": 4096,
        "nic": 4096,
        "nvswitch": 512,
        "switch0": 128,
        "switch1": 128,
        "switch2": 64,
    }
    assert topology.graph.number_of_nodes() == 9024
    assert len(topology.links) == 29696
    for stage in ("nic>switch0", "switch0>switch1", "switch1>switch2"):
        assert _cables(topology, f"ib:{stage}") == 4096
    used = Counter()
    for link in topology.links:
        if link.kind == "ib":
            used[link.source] += link.cables
    switches = [n for n in used if topology.graph.nodes[n]["kind"] == "switch"]
    assert {used[switch] for switch in switches} == {64}
    assert not topology.warnings


def test_the_superpod_routes_every_pair(superpod):
    """Shares 1/16 to the spines, 1/64 to the cores: Q = 64."""
    assert superpod.q == 64
    assert int(superpod.reachable_GG.sum()) == 4096 * 4095


def test_uniform_traffic_fills_each_stage_of_the_superpod_alike(superpod):
    """Closed form, one transfer per pair; see the counts in the comments."""
    loads = superpod.loads(np.ones((4096, 4096), dtype=np.int64))
    by_class = {}
    for link in superpod.topology.links:
        by_class.setdefault(link.link_class, set()).add(int(loads[link.index]))
    expected = {
        "nvlink:gpu>nvswitch": 7,
        "ib:nic>switch0": 4088,
        # 32 GPUs to all but the 32 of the leaf and the 7 of the host, 16 spines.
        "ib:switch0>switch1": 32 * (4096 - 32 - 7) // 16,
        # 16 leaves of 32 GPUs to 3,584 GPUs of other pods, 16 spines, 4 cores.
        "ib:switch1>switch2": 16 * 32 * 3584 // 16 // 4,
    }
    for link_class, transfers in expected.items():
        assert by_class[link_class] == {transfers * 64}
    assert by_class["ib:switch2>switch1"] == by_class["ib:switch1>switch2"]


@pytest.mark.parametrize(
    ("name", "hosts", "units", "spines", "cables"),
    [("h100-18x8-rail", 18, 1, 6, 3), ("h100-40x8-rail", 40, 2, 5, 4)],
)
def test_eight_rails_route_every_pair(name, hosts, units, spines, cables):
    """Closed form, one transfer per pair: rails of a unit meet at their leaf."""
    routes = build_routes(load_topology(name))
    topology, gpus, leaves = routes.topology, 8 * hosts, 8 * units
    assert _kinds(topology) == {
        "gpu": gpus,
        "nic": gpus,
        "nvswitch": hosts,
        "switch0": leaves,
        "switch1": spines,
    }
    assert _cables(topology, "ib:switch0>switch1") == leaves * spines * cables == gpus
    assert not topology.warnings
    assert int(routes.reachable_GG.sum()) == gpus * (gpus - 1)
    loads = routes.loads(np.ones((gpus, gpus), dtype=np.int64))
    inside = hosts // units
    expected = {
        "nvlink:gpu>nvswitch": 7,
        "ib:nic>switch0": gpus - 8,
        # Those of the leaf to all but the leaf's GPUs and the 7 of the host.
        "ib:switch0>switch1": inside * (gpus - inside - 7),
    }
    for link_class, transfers in expected.items():
        found = [k.index for k in topology.links if k.link_class == link_class]
        share = spines if link_class.endswith("switch1") else 1
        assert {int(loads[index]) * share for index in found} == {transfers * routes.q}


def test_one_gpu_per_expert_of_deepseek_has_room_in_its_switches():
    """58 · 256 GPUs; every stage has as many cables, no switch above 64 ports."""
    value, _, _ = load_json("h200-1856x8-rail")
    kinds = Counter(
        f"switch{node['tier']}" if node["kind"] == "switch" else node["kind"]
        for node in value["nodes"]
    )
    assert kinds == {
        "gpu": 58 * 256,
        "nic": 58 * 256,
        "nvswitch": 1856,
        "switch0": 464,
        "switch1": 464,
        "switch2": 256,
    }
    kind_of = {node["id"]: (node["kind"], node.get("tier")) for node in value["nodes"]}
    used, stages = Counter(), Counter()
    for edge in value["edges"]:
        if edge["kind"] == "ib":
            ends, cables = (edge["source"], edge["target"]), edge.get("cables", 1)
            for end in ends:
                used[end] += cables
            stages[tuple(kind_of[end] for end in ends)] += cables
    switches = {n["id"] for n in value["nodes"] if n["kind"] == "switch"}
    assert max(used[switch] for switch in switches) == 64
    assert sorted(stages.values()) == [58 * 256] * 3


def test_expanding_the_superpod_keeps_its_graph_record():
    """A generator file's name, profiles and provenance reach the cluster."""
    value, _, _ = load_json(SUPERPOD)
    assert value["graph"]["name"] == SUPERPOD
    assert len(value["nodes"]) == 9024
    assert len(value["edges"]) == 29696 // 2
