"""The command line as a person meets it: exit codes, messages, nothing written.

Runs in this process (the wheel test runs the installed command): ``main`` is called
with arguments and its exit code, stdout and stderr are looked at.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planner.cli import main
from planner.workload.synth import UniformTrace, write_uniform
from tests.instances import cluster

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Run:
    """Run ``planner`` in an empty folder; return exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["planner", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        code = left.value.code
        return (0 if code is None else int(code)), out, err

    return call


def edited(tmp_path: Path, edit: Callable[[dict], object]) -> str:
    """Write a small cluster file after ``edit`` changed it."""
    data = cluster([2, 2])
    edit(data)
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return "cluster.json"


BAD_CLUSTERS = {
    "no edges": (lambda d: d.update(edges=[]), "/edges"),
    "unknown node": (lambda d: d["edges"][3].update(target="ghost"), "/edges/3"),
    "zero bandwidth": (
        lambda d: d["edges"][0].update(bandwidth_gbs=0),
        "/edges/0/bandwidth_gbs",
    ),
    "negative bandwidth": (
        lambda d: d["edges"][0].update(bandwidth_gbs=-1),
        "/edges/0/bandwidth_gbs",
    ),
    "NaN bandwidth": (
        lambda d: d["edges"][0].update(bandwidth_gbs=float("nan")),
        "/edges/0/bandwidth_gbs",
    ),
    "infinite bandwidth": (
        lambda d: d["edges"][0].update(bandwidth_gbs=float("inf")),
        "/edges/0/bandwidth_gbs",
    ),
    "duplicate ids": (lambda d: d["nodes"].append(d["nodes"][2]), "/nodes/"),
    "unknown key": (lambda d: d["nodes"][2].update(speed=3), "/nodes/2/speed"),
}


@pytest.mark.parametrize("case", BAD_CLUSTERS)
def test_a_bad_cluster_is_refused_at_its_place(
    case: str, run: Run, tmp_path: Path
) -> None:
    """Exit 3, one message with file and JSON pointer, no plan written."""
    edit, pointer = BAD_CLUSTERS[case]
    code, out, err = run("solve", edited(tmp_path, edit), "-o", "plan.json")
    assert (code, out) == (3, "")
    assert err.count("error:") == 1
    assert "cluster.json" in err
    assert pointer in err
    assert not (tmp_path / "plan.json").exists()


def test_text_of_nvidia_smi_names_the_verb_that_imports_it(
    run: Run, tmp_path: Path
) -> None:
    """A matrix is not JSON, and the way out is said."""
    text = "\tGPU0\tGPU1\tCPU Affinity\nGPU0\t X \tNV18\t0-47\nGPU1\tNV18\t X \t0-47\n"
    (tmp_path / "topo.txt").write_text(text, encoding="utf-8")
    code, _, err = run("solve", "topo.txt")
    assert code == 3
    assert "nvidia-smi" in err
    assert "import" in err


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_no_such_cluster(name: str, run: Run) -> None:
    """A missing file and a directory: exit 3."""
    code, _, err = run("solve", name)
    assert code == 3
    assert "error:" in err


def uniform(path: Path, *, tokens: int = 64, experts: int = 64) -> None:
    write_uniform(
        path,
        UniformTrace(
            tokens=tokens, experts=experts, top_k=6, layer_numbers=(1, 2, 3, 4, 5, 6)
        ),
    )


def test_a_trace_of_another_model_names_what_differs(run: Run, tmp_path: Path) -> None:
    """tiny-moe has 64 experts; a trace of 32 does not fit."""
    uniform(tmp_path / "t.parquet", experts=32)
    code, _, err = run(
        "solve", "toy-2x2", "--trace", "t.parquet", "--model", "tiny-moe"
    )
    assert code == 3
    assert "32 experts" in err


def test_ids_beyond_the_experts_are_refused(run: Run, tmp_path: Path) -> None:
    """Column, row and value are named."""
    uniform(tmp_path / "good.parquet")
    table = pq.read_table(tmp_path / "good.parquet")
    at = next(i for i, n in enumerate(table.schema.names) if n.startswith("e0"))
    values = [[200] * 6, *table.column(at).to_pylist()[1:]]
    column = pa.array(values, table.schema.field(at).type)
    pq.write_table(
        table.set_column(at, table.schema.field(at), column), tmp_path / "bad.parquet"
    )
    code, _, err = run("solve", "toy-2x2", "--trace", "bad.parquet")
    assert code == 3
    assert "200" in err
    assert f"column {table.schema.names[at]}" in err


def test_a_truncated_trace_is_refused(run: Run, tmp_path: Path) -> None:
    """Half a Parquet file."""
    uniform(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    code, _, err = run("solve", "toy-2x2", "--trace", "half.parquet")
    assert code == 3
    assert "half.parquet" in err


def test_an_empty_trace_is_refused(run: Run, tmp_path: Path) -> None:
    """A file without rows."""
    uniform(tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet").slice(0, 0)
    pq.write_table(table, tmp_path / "empty.parquet")
    code, _, err = run("solve", "toy-2x2", "--trace", "empty.parquet")
    assert code == 3
    assert "empty.parquet" in err


def test_memory_too_small_says_how_many_bytes_and_which_knob(run: Run) -> None:
    """Exit 4: infeasible, with the way out."""
    arguments = ("solve", "toy-2x2", "--kv-tokens", "100000000")
    code, out, err = run(*arguments)
    assert (code, out) == (4, "")
    assert "infeasible: memory too small: n0/gpu0 needs" in err
    assert "bytes" in err
    assert "repairs, the cheapest first, each checked again" in err
    assert "--kv-tokens" in err
    code, out, _ = run(*arguments, "--format", "json")
    (cause,) = json.loads(out)["causes"]
    assert (code, cause["name"]) == (4, "memory")
    knob = cause["repairs"][0]["options"]["kv_tokens"]
    assert run("solve", "toy-2x2", "--kv-tokens", str(knob + 1))[0] == 4


def test_too_few_slots_are_infeasible(run: Run) -> None:
    """64 experts, one slot on each of 4 GPUs: exit 4."""
    code, _, err = run("solve", "toy-2x2", "--policy", "one_expert_per_gpu")
    assert code == 4
    assert "too few slots" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--phase", "training"),
        ("--selection", "best"),
        ("--traffic", "telepathy"),
        ("--strategy", "luck"),
        ("--layers", "pipelined"),
        ("--time-limit", "nan"),
        ("--gap", "2"),
        ("--holdout", "half"),
        ("--endpoint", "local_nic"),
        ("--redundant", "-1"),
        ("--domain-imbalance-cap", "0.5"),
        ("--message-bytes", "12"),
        ("--format", "xml"),
    ],
    ids=lambda pair: "=".join(pair),
)
def test_flags_that_cannot_be_are_usage_errors(
    arguments: tuple[str, str], run: Run
) -> None:
    """Exit 2 and one message, before anything is planned."""
    code, out, err = run("solve", "toy-2x2", *arguments)
    assert (code, out) == (2, "")
    assert arguments[0].lstrip("-").split("=")[0] in err or arguments[1] in err


def test_a_plan_goes_through_every_verb(run: Run, tmp_path: Path) -> None:
    """solve, show, verify, replay, evaluate, export: exit 0 and readable output."""
    code, out, err = run("solve", "toy-2x2", "--time-limit", "1", "-o", "plan.json")
    assert code == 0
    assert "than the better EPLB" in out
    assert "incumbent" in err
    assert "tiny-moe on toy-2x2" in err
    for verb, expected in (
        (("show", "plan.json"), "than the better EPLB"),
        (("verify", "plan.json"), "verified"),
        (("replay", "plan.json", "--executor", "counter"), "predicted = moved"),
        (("evaluate", "toy-2x2", "--plan", "plan.json"), "link_time"),
        (("export", "plan.json", "--to", "sglang", "-o", "engine"), "--ep-size"),
    ):
        code, out, err = run(*verb)
        assert code == 0, err
        assert expected in out
    data = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    data["layers"][0]["slots"][0][0] = data["layers"][0]["slots"][1][0]
    (tmp_path / "plan.json").write_text(json.dumps(data), encoding="utf-8")
    for verb in (("verify", "plan.json"), ("replay", "plan.json")):
        code, _, err = run(*verb)
        assert code == 6, err


def test_one_expert_per_gpu_is_explained_without_more_slots(
    run: Run, tmp_path: Path
) -> None:
    """Law: no slot more is offered where the policy has one expert per GPU."""
    plan = str(tmp_path / "plan.json")
    asked = ("--strategy", "contiguous", "--policy", "one_expert_per_gpu")
    assert run("solve", "h100-8x8-rail", *asked, "-o", plan)[0] == 0
    code, out, _ = run("explain", plan)
    assert code == 0
    assert "memory does not bind: a GPU takes no more slots; n0/gpu0 has least" in out


def test_a_matching_is_proven_and_a_tampered_proof_is_refused(
    run: Run, tmp_path: Path
) -> None:
    """``proven_optimal`` as solved; a higher level or a step left out: exit 6."""
    drawn = ("trace", "synth", "mixtral", "--tokens", "600", "-o", "mixtral.parquet")
    assert run(*drawn)[0] == 0
    asked = ("--trace", "mixtral.parquet", "--traffic", "dedup_gpu", "--redundant", "0")
    assert run("solve", "dgx-h100-1", *asked, "-o", "plan.json")[0] == 0
    true = (tmp_path / "plan.json").read_text(encoding="utf-8")
    assert json.loads(true)["status"] == "proven_optimal"
    assert run("verify", "plan.json")[0] == 0
    for change in (
        lambda proof: proof.update(level="1/1000"),
        lambda proof: proof["refuted"].pop(),
    ):
        data = json.loads(true)
        change(data["bound"]["certificate"]["layers"][2])
        (tmp_path / "lie.json").write_text(json.dumps(data), encoding="utf-8")
        code, _, err = run("verify", "lie.json")
        assert code == 6
        assert "bound.certified_exact" in err


def test_a_plan_is_explained(run: Run, tmp_path: Path) -> None:
    """What binds, memory, and rows of what relaxing is worth, in this order."""
    plan = str(tmp_path / "plan.json")
    asked = ("--strategy", "contiguous", "--traffic", "copies", "--redundant", "4")
    assert run("solve", "toy-2x2", *asked, "-o", plan)[0] == 0
    code, out, _ = run("explain", plan, "--top", "1")
    assert code == 0
    assert "binds: ib:" in out
    assert "what binds, the 1 costliest layers" in out
    assert "memory does not bind: one more slot fits in every layer" in out
    assert "nothing relaxed" in out
    assert "all ib links 10% faster" in out
    assert "18 slots per GPU" in out
    assert "selection even instead" in out
    code, out, _ = run("explain", plan, "--format", "json")
    report = json.loads(out)
    assert code == 0
    assert len(report["workloads"][0]["layers"]) == 6
    assert {row["kind"] for row in report["relaxations"]} == {
        "nothing",
        "link",
        "slots",
        "selection",
    }


def test_a_cluster_is_diagnosed(run: Run) -> None:
    """Five effects; with --ablate what plans without each are worth."""
    code, out, err = run("diagnose", "toy-2x2")
    assert code == 0
    assert "tiny-moe on toy-2x2" in err
    for word in ("(a) dedup", "(b) homes", "(c) direct", "(d) near", "(e) unequal"):
        assert word in out
    assert "--ablate solves" in out
    quick = ("--strategy", "eplb_global", "--time-limit", "1", "--ablate")
    code, out, _ = run("diagnose", "toy-2x2", *quick)
    assert code == 0
    assert "measured by solving, unseen tokens" in out
    assert "(a)-(e) unseen" in out


def test_json_output_is_the_manifest(run: Run) -> None:
    """``--format json``: stdout holds one JSON document and nothing else."""
    code, out, _ = run(
        "solve", "toy-2x2", "--strategy", "contiguous", "--format", "json"
    )
    assert code == 0
    assert json.loads(out)["schema"] == "moe-plan/1"


def test_uniform_routing_is_told_that_links_cannot_gain(
    run: Run, tmp_path: Path
) -> None:
    """Copies, one NIC per GPU, homes independent of experts: only balance matters."""
    uniform(tmp_path / "u.parquet", tokens=4000)
    code, out, _ = run(
        "solve", "toy-2x2", "--trace", "u.parquet", "--traffic", "copies",
        "--strategy", "eplb_global",
    )  # fmt: skip
    assert code == 0
    assert "links cannot gain here" in out


def test_the_version_is_printed(run: Run) -> None:
    """``planner --version``."""
    code, out, _ = run("--version")
    assert code == 0
    assert out.strip()[0].isdigit()


def test_the_model_is_written_before_it_is_solved(run: Run, tmp_path: Path) -> None:
    """Law: ``--dump-model`` leaves the whole model, and says why there is none."""
    path = tmp_path / "model.mps"
    few = ("--time-limit", "1", "--redundant", "0", "--dump-model", str(path))
    code, out, err = run("solve", "toy-2x2", "--phase", "decode", *few)
    assert code == 0, err
    assert "model written to" in out
    assert path.read_text().endswith("ENDATA\n")
    code, _, err = run("solve", "toy-2x2", *few)
    assert code == 2
    assert "traffic dedup_domain has no linear model" in err
