"""``planner trace info`` and ``planner trace synth`` as a user runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from planner.cli.trace import app
from planner.errors import TraceError, UsageError
from planner.workload.trace_writer import write_trace


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Four tokens, two sequences, 8 of 8 experts of Mixtral's shape, one gap."""
    ids = np.array([[0, 1], [0, 2], [0, 3], [0, -1]])
    path = tmp_path / "small.parquet"
    write_trace(
        path,
        metadata={"model": "mine", "num_experts": 8, "top_k": 2},
        seq_id=[4, 4, 4, 9],
        pos=[0, 1, 2, 0],
        tag=["x", "x", "x", "y"],
        phase="prefill",
        experts={number: ids for number in range(32)},
    )
    return path


def test_info_tells_what_a_trace_holds(small: Path) -> None:
    """Counts, tags, skew, gaps and homes, worked by hand: load 4 of 7/8 on mean."""
    result = run("info", small, "--dp", 2, "--format", "json")
    figures = json.loads(result.stdout)
    assert (figures["tokens"], figures["sequences"]) == (4, 2)
    assert figures["longest_sequence"] == 3
    assert figures["tags"] == {
        "x": {"tokens": 3, "sequences": 1},
        "y": {"tokens": 1, "sequences": 1},
    }
    assert figures["skew"]["median"] == pytest.approx(4 / (7 / 8))
    assert (figures["null_rows"], figures["null_ids"]) == (0, 32)
    assert figures["homes_max_over_mean"] == {
        "by_token": 1.0,
        "round_robin": 1.5,
        "balanced": 1.5,
        "by_tag": 1.5,
    }
    assert figures["fits"] == ["mixtral-8x7b"]
    text = run("info", small).stdout
    for words in ("4 tokens in 2 sequences", "32 MoE layers (0-31)", "mixtral-8x7b"):
        assert words in text


def test_info_compares_with_a_model(small: Path) -> None:
    """``--model`` says what differs instead of which known model fits."""
    text = run("info", small, "--model", "paper-16x16").stdout
    assert "model paper-16x16: differs: 8 experts, the model has 16" in text
    assert (
        "model mixtral-8x7b: fits"
        in run("info", small, "--model", "mixtral-8x7b").stdout
    )


def test_info_lists_the_workloads_of_counts(shared_data: Path) -> None:
    """Without ``#NAME`` every workload of a counts table gets a row."""
    path = shared_data / "traces" / "deepseek-r1_counts.parquet"
    figures = json.loads(run("info", path, "--format", "json").stdout)
    assert figures["kind"] == "counts"
    by_name = {found["workload"]: found for found in figures["workloads"]}
    assert len(by_name) == 8
    assert by_name["prefill_in1024"]["tokens"] == 8_388_608
    assert "prefill_in1024" in run("info", path).stdout


def test_synth_writes_what_info_reads(tmp_path: Path) -> None:
    """Flags decide the shape; the label is told."""
    path = tmp_path / "u.parquet"
    shape = ("--tokens", 500, "--experts", 16, "--top-k", 2, "--layers", 16)
    text = run("synth", "uniform", "-o", path, *shape).stdout
    assert "500 tokens, synthetic: uniform, seed 0" in text
    figures = json.loads(run("info", path, "--format", "json").stdout)
    assert figures["fits"] == ["paper-16x16"]
    assert figures["synthetic"] == "uniform"
    assert "synthetic: uniform" in run("info", path).stdout


def test_synth_takes_the_shape_of_a_model(tmp_path: Path) -> None:
    """``--model`` instead of the four shape flags; both together are refused."""
    path = tmp_path / "u.parquet"
    made = run(
        *("synth", "uniform", "-o", path, "--tokens", 64, "--format", "json"),
        *("--model", "tiny-moe"),
    )
    assert json.loads(made.stdout)["synthetic"] == "uniform"
    figures = json.loads(run("info", path, "--format", "json").stdout)
    assert figures["fits"] == ["tiny-moe"]
    with pytest.raises(UsageError, match="leave out --layers"):
        run("synth", "uniform", "-o", path, "--model", "tiny-moe", "--layers", 3)


def test_bad_input_writes_nothing(tmp_path: Path) -> None:
    """Unknown kinds, folders and shapes are refused before a file is made."""
    path = tmp_path / "u.parquet"
    with pytest.raises(UsageError, match="unknown kind"):
        run("synth", "zipf", "-o", path)
    with pytest.raises(UsageError, match="--top-k 70"):
        run("synth", "uniform", "-o", path, "--top-k", 70)
    with pytest.raises(UsageError, match="folder that exists"):
        run("synth", "uniform", "-o", tmp_path / "no" / "u.parquet")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TraceError, match="does not exist"):
        run("info", path)


def test_synth_draws_calibrated_kinds_of_a_fixed_shape(tmp_path: Path) -> None:
    """A kind shaped as a model takes tags, and refuses what the model decides."""
    path = tmp_path / "m.parquet"
    text = run("synth", "mixtral", "-o", path, "--tokens", 400, "--tags", 2).stdout
    assert "400 tokens, synthetic: mixtral, seed 0" in text
    figures = json.loads(run("info", path, "--format", "json").stdout)
    assert figures["fits"] == ["mixtral-8x7b"]
    assert set(figures["tags"]) == {"topic0", "topic1"}
    with pytest.raises(UsageError, match="leave out --experts"):
        run("synth", "mixtral", "-o", path, "--experts", 8)
    with pytest.raises(UsageError, match="leave out --tags"):
        run("synth", "uniform", "-o", path, "--tags", 2)
