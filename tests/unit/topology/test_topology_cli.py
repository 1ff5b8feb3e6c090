"""``planner topology``: what is printed, written, refused."""

import json

import pytest
from typer.testing import CliRunner

from planner import bundled
from planner.cli.topology import app
from planner.errors import TopologyError, UsageError
from planner.topology.schema import load_topology


def _run(*words):
    """Run the verbs; errors are for the main command to print."""
    result = CliRunner().invoke(app, list(words))
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


def test_validate_says_what_it_found():
    """One line for a good file."""
    printed = _run("validate", "toy-2x2")
    assert printed.startswith("valid toy-2x2: 4 GPUs on 2 hosts")
    assert "2 scale-up domains (2 of 2 GPUs), 2 rails" in printed


def test_validate_prints_json():
    """Machines read the same."""
    figures = json.loads(_run("validate", "toy-2x2", "--format", "json"))
    assert figures["valid"] is True
    assert (figures["gpus"], figures["hosts"], figures["warnings"]) == (4, 2, [])


def test_validate_prints_warnings():
    """What is legal but looks wrong."""
    printed = _run("validate", "paper-h100-32x8-hdr")
    assert "warning: bandwidths that are assumed" in printed


def test_describe_is_readable():
    """GPUs, switches, every link class with nominal and effective bandwidth."""
    printed = _run("describe", "h100-4x8-rail")
    assert "32 × h100-sxm-80g of 80 GB" in printed
    assert "tier 0: 8, tier 1: 4" in printed
    assert "nvlink:gpu>nvswitch" in printed
    assert "369" in printed
    assert "Q = 4; every GPU pair has a path" in printed
    assert "assumed: efficiency of ib: 0.9 of nominal" in printed


def test_describe_prints_json():
    """All figures, exact where they are integers."""
    figures = json.loads(_run("describe", "h100-4x8-rail", "--format", "json"))
    assert figures["domains"] == {"count": 4, "sizes": {"8": 4}}
    assert figures["switches_by_tier"] == {"0": 8, "1": 4}
    assert figures["routing"]["q"] == "4"
    assert figures["routing"]["pairs_without_path"] == 0
    up = next(c for c in figures["link_classes"] if c["class"] == "ib:switch0>switch1")
    assert up == {
        "class": "ib:switch0>switch1",
        "links": 32,
        "cables": 32,
        "nominal_gbs": 50.0,
        "effective_gbs": 45.0,
    }


def test_describe_names_what_is_down_and_what_the_file_asks_for(tmp_path):
    """A degraded cluster, with an endpoint of its own."""
    file = json.loads(bundled.topology_path("toy-2x2").read_text(encoding="utf-8"))
    file["edges"][0]["state"] = "down"
    file["graph"]["routing"] = {"endpoint": "dest_forward"}
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    printed = _run("describe", str(path))
    assert "down: n0/gpu0 -> n0/nvs" in printed
    assert "the file asks for dest_forward" in printed


def test_expand_writes_what_loads_the_same(tmp_path):
    """Expanding a file and reading it back changes nothing."""
    path = tmp_path / "rail.json"
    said = _run("expand", "h100-4x8-rail", "-o", str(path))
    assert said.strip() == f"wrote {path}: 80 nodes, 128 edges"
    assert load_topology(path).links == load_topology("h100-4x8-rail").links
    printed = _run("expand", "toy-2x2")
    given = json.loads(bundled.topology_path("toy-2x2").read_text(encoding="utf-8"))
    assert json.loads(printed) == given


def test_expand_writes_out_a_generator_with_exact_decimals(tmp_path):
    """12.5 GB/s cables, three to a pair, are 37.5 GB/s; a workload is kept."""
    path = tmp_path / "short.json"
    generator = {
        "kind": "rail_fat_tree",
        "nodes": 2,
        "gpus_per_node": 2,
        "profile": "p",
        "nvlink": {"bandwidth_gbs": 450},
        "pcie_gbs": 64,
        "nic_gbs": 12.5,
        "su_nodes": 2,
        "spines": 1,
        "uplink_cables": 3,
    }
    file = {
        "schema": "moe-topology/1",
        "generator": generator,
        "graph": {"profiles": {"p": {"memory_bytes": 1}}},
        "workload": {"model": "tiny-moe"},
    }
    path.write_text(json.dumps(file), encoding="utf-8")
    made = json.loads(_run("expand", str(path)))
    assert made["workload"] == {"model": "tiny-moe"}
    assert made["graph"]["name"] == "short"
    up = [e for e in made["edges"] if e["target"] == "spine0"]
    assert [(e["bandwidth_gbs"], e["cables"]) for e in up] == [(37.5, 3)] * 2
    assert load_topology(made).links == load_topology(path).links


def test_expand_writes_nothing_for_a_bad_file(tmp_path):
    """A file that would not load is not written."""
    bad, out = tmp_path / "bad.json", tmp_path / "out.json"
    text = bundled.topology_path("toy-2x2").read_text(encoding="utf-8")
    bad.write_text(text.replace('"bandwidth_gbs": 64', '"bandwidth_gbs": 0'), "utf-8")
    with pytest.raises(TopologyError, match="bandwidth_gbs"):
        _run("expand", str(bad), "-o", str(out))
    assert not out.exists()


def test_an_unknown_format_is_a_usage_error():
    """Human or JSON."""
    with pytest.raises(UsageError, match="neither human nor json"):
        _run("validate", "toy-2x2", "--format", "yaml")
