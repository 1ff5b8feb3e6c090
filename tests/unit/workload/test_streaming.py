"""Token traces in chunks: what a reader of the whole file gives, piece by piece."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from planner.errors import TraceError
from planner.layout import ParallelLayout
from planner.workload.parts import TokenPart
from planner.workload.split import split_parts
from planner.workload.streaming import TokenStream
from planner.workload.trace import load_trace
from planner.workload.trace_writer import write_trace
from tests.instances import model

SPEC = model(layers=2, experts=6, top_k=2)
LAYOUT = ParallelLayout(
    domain_G=np.array([0, 0, 1, 1]), ep=4, attention_groups=((0, 1), (2, 3))
)
COLUMNS = ("source_T", "rank_T", "ordinal_T", "row_T", "sequence_T", "tag_T")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 50 tokens in two phases, with nulls; seven rows are read at a time."""
    monkeypatch.setattr("planner.workload.parquet.BATCH_ROWS", 7)
    return written(tmp_path / "trace.parquet")


def written(path: Path, *, experts: int = 6, wrong: int | None = None) -> Path:
    rng = np.random.default_rng(4)
    ids = rng.integers(-1, 6, size=(2, 50, 2))
    if wrong is not None:
        ids[1, 31, 0] = wrong
    write_trace(
        path,
        metadata={"num_experts": experts, "top_k": 2, "order": "router"},
        seq_id=rng.integers(9, size=50),
        pos=np.arange(50),
        tag=[str(tag) for tag in rng.integers(3, size=50)],
        phase=["decode" if late else "prefill" for late in rng.integers(2, size=50)],
        experts={0: ids[0], 1: ids[1]},
    )
    return path


@pytest.mark.parametrize("homes", ["by_token", "round_robin", "balanced", "by_tag"])
@pytest.mark.parametrize("phase", ["prefill", "decode", None])
def test_chunks_are_the_whole_file(path: Path, homes: str, phase: str | None) -> None:
    """Law: every column of every token, in order, is that of the file read whole."""
    whole, _, _ = split_parts(load_trace(path), LAYOUT, homes, "0", phase)
    assert isinstance(whole, TokenPart)
    chunks = list(TokenStream(path, SPEC).chunks(LAYOUT, homes, phase))
    assert len(chunks) == 8
    experts_LTK = np.concatenate([chunk.experts_LTK for chunk in chunks], axis=1)
    assert np.array_equal(experts_LTK, whole.experts_LTK)
    for name in COLUMNS:
        pieces = np.concatenate([getattr(chunk, name) for chunk in chunks])
        assert np.array_equal(pieces, getattr(whole, name)), name


def test_a_trace_of_another_model_is_refused(path: Path) -> None:
    """Law: experts, top-k and layers are those of the plan's model."""
    with pytest.raises(TraceError, match="6 experts, the model has 8"):
        TokenStream(path, model(layers=2, experts=8, top_k=2))


def test_a_wrong_id_is_named_by_its_row_in_the_file(tmp_path: Path, path: Path) -> None:
    """Law: a value deep in the file is refused like one that is read at once."""
    bad = written(tmp_path / "bad.parquet", experts=7, wrong=6)
    stream = TokenStream(bad, model(layers=2, experts=7, top_k=2))
    assert len(list(stream.chunks(LAYOUT, None, None))) == 8
    table = pq.read_table(bad)
    facts = json.loads(table.schema.metadata[b"moe_trace"]) | {"num_experts": 6}
    renamed = table.replace_schema_metadata({"moe_trace": json.dumps(facts)})
    pq.write_table(renamed, bad)
    stream = TokenStream(bad, SPEC)
    with pytest.raises(TraceError, match=r"e01, row 31: .* expert id from 0 to 5"):
        list(stream.chunks(LAYOUT, None, None))
