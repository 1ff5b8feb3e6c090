"""Traces are read as rule 11 says, and what breaks it is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from planner.errors import TraceError
from planner.workload.counts import inline_counts
from planner.workload.demand import expert_loads
from planner.workload.summary import skew
from planner.workload.trace import CountsTable, RoutingTrace, list_workloads, load_trace
from planner.workload.trace_writer import write_trace

FACTS = {"num_experts": 4, "top_k": 2, "moe_layers": [1], "model": "m"}
U8_PAIRS = pa.list_(pa.uint8(), 2)


def columns(**changes: Any) -> dict[str, pa.Array]:
    """Return the columns of a legal three-token trace, some replaced or dropped."""
    found = {
        "seq_id": pa.array([5, 5, 2], pa.uint32()),
        "phase": pa.array(["prefill"] * 3).dictionary_encode(),
        "tag": pa.array(["b", "b", "a"]).dictionary_encode(),
        "e01": pa.array([[0, 1], [2, 3], [1, 3]], U8_PAIRS),
    }
    found.update(changes)
    return {name: value for name, value in found.items() if value is not None}


def save(
    path: Path, data: dict[str, pa.Array], facts: Any = FACTS, key: str = "moe_trace"
) -> Path:
    text = facts if isinstance(facts, str | bytes) else json.dumps(facts)
    table = pa.table(data).replace_schema_metadata({key: text})
    pq.write_table(table, path)
    return path


def tokens(path: Path) -> RoutingTrace:
    trace = load_trace(path)
    assert isinstance(trace, RoutingTrace)
    return trace


def test_a_trace_is_read_with_its_sequences_tags_and_phases(tmp_path: Path) -> None:
    """Codes point into sorted names; sequences into sorted ids."""
    trace = tokens(save(tmp_path / "t.parquet", columns()))
    assert trace.experts_LTK.tolist() == [[[0, 1], [2, 3], [1, 3]]]
    assert trace.sequence_ids == (2, 5)
    assert trace.sequence_T.tolist() == [1, 1, 0]
    assert (trace.tags, trace.tag_T.tolist()) == (("a", "b"), [1, 1, 0])
    assert (trace.phases, trace.phase_T.tolist()) == (("prefill",), [0, 0, 0])
    assert (trace.model, trace.layer_numbers) == ("m", (1,))
    assert trace.rank_T is None
    assert trace.order is None


def test_layer_columns_are_ordered_by_number_not_by_place(tmp_path: Path) -> None:
    """``e10`` follows ``e2``; ``e01`` is layer 1 (rule 11)."""
    data = columns(
        e01=None,
        e10=pa.array([[0, 1]] * 3, U8_PAIRS),
        e2=pa.array([[2, 3]] * 3, U8_PAIRS),
    )
    trace = tokens(save(tmp_path / "t.parquet", data, FACTS | {"moe_layers": [2, 10]}))
    assert trace.layer_numbers == (2, 10)
    assert trace.experts_LTK[:, 0].tolist() == [[2, 3], [0, 1]]


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.uint8(), 2),
        pa.list_(pa.uint16(), 2),
        pa.list_(pa.int32(), 2),
        pa.list_(pa.int64()),
        pa.large_list(pa.uint8()),
    ],
    ids=str,
)
def test_null_rows_and_elements_are_minus_one(
    tmp_path: Path, kind: pa.DataType
) -> None:
    """A null row or element makes no message; the row keeps its place (rule 11)."""
    data = columns(e01=pa.array([None, [None, 3], [0, 1]], kind))
    trace = tokens(save(tmp_path / "t.parquet", data))
    assert trace.experts_LTK.tolist() == [[[-1, -1], [-1, 3], [0, 1]]]


def test_optional_columns_are_kept(tmp_path: Path) -> None:
    """Rank counts only where it is complete; other gaps read as -1."""
    data = columns(
        rank=pa.array([1, 0, 1], pa.uint16()),
        step=pa.array([0, None, 1], pa.uint32()),
        pos=pa.array([0, 1, 0], pa.uint32()),
        token_id=pa.array([9, 8, 7], pa.uint32()),
    )
    trace = tokens(save(tmp_path / "t.parquet", data, FACTS | {"order": "router"}))
    found = [trace.rank_T, trace.step_T, trace.pos_T, trace.token_id_T]
    assert [column.tolist() for column in found if column is not None] == [
        [1, 0, 1],
        [0, -1, 1],
        [0, 1, 0],
        [9, 8, 7],
    ]
    assert trace.order == "router"
    data["rank"] = pa.array([1, None, 1], pa.uint16())
    assert tokens(save(tmp_path / "u.parquet", data)).rank_T is None


BROKEN: dict[str, tuple[dict[str, Any], Any, list[str]]] = {
    "id too large": (
        columns(e01=pa.array([[0, 1], [2, 4], [1, 3]], U8_PAIRS)),
        FACTS,
        ["column e01, row 1", "4", "from 0 to 3"],
    ),
    "negative id": (
        columns(e01=pa.array([[0, 1], [2, -1], [1, 3]], pa.list_(pa.int8(), 2))),
        FACTS,
        ["column e01, row 1", "from 0 to 3"],
    ),
    "negative id beside a null": (
        columns(e01=pa.array([[0, None], [2, -7], [1, 3]], pa.list_(pa.int8(), 2))),
        FACTS,
        ["column e01, row 1", "from 0 to 3"],
    ),
    "no rows": (
        {name: value.slice(0, 0) for name, value in columns().items()},
        FACTS,
        ["no rows"],
    ),
    "no sequence ids": (columns(seq_id=None), FACTS, ["seq_id or request_id"]),
    "null sequence id": (
        columns(seq_id=pa.array([5, None, 2])),
        FACTS,
        ["column seq_id", "null"],
    ),
    "sequence ids are floats": (
        columns(seq_id=pa.array([5.0, 1.0, 2.0])),
        FACTS,
        ["column seq_id", "double"],
    ),
    "no layer": (columns(e01=None), FACTS, ["e<layer number>"]),
    "a layer twice": (
        columns(e1=pa.array([[0, 1]] * 3, U8_PAIRS)),
        FACTS,
        ["column e1", "twice"],
    ),
    "another top-k": (
        columns(e01=pa.array([[0, 1, 2]] * 3, pa.list_(pa.uint8(), 3))),
        FACTS,
        ["column e01, row 0", "3 experts", "top_k = 2"],
    ),
    "rows of several lengths": (
        columns(e01=pa.array([[0, 1], [2, 3], [1]], pa.list_(pa.uint8()))),
        FACTS,
        ["column e01, row 2", "1 experts", "top_k = 2"],
    ),
    "ids are not lists": (
        columns(e01=pa.array([0, 1, 2])),
        FACTS,
        ["column e01", "lists of integers"],
    ),
    "ids are texts": (
        columns(e01=pa.array([["a", "b"]] * 3, pa.list_(pa.string(), 2))),
        FACTS,
        ["column e01", "lists of integers"],
    ),
    "another phase": (
        columns(phase=pa.array(["prefill", "warmup", "decode"])),
        FACTS,
        ["column phase", "warmup", "prefill, decode, draft"],
    ),
    "tags are numbers": (columns(tag=pa.array([1, 2, 3])), FACTS, ["column tag"]),
    "negative rank": (
        columns(rank=pa.array([0, -1, 0])),
        FACTS,
        ["column rank", "-1", ">= 0"],
    ),
    "metadata is not JSON": (columns(), "{", ["moe_trace", "not JSON"]),
    "metadata is a list": (columns(), [1], ["moe_trace", "JSON object"]),
    "metadata without experts": (
        columns(),
        {"top_k": 2},
        ["moe_trace/num_experts", "missing"],
    ),
    "metadata with a text top-k": (
        columns(),
        {"num_experts": 4, "top_k": "2"},
        ["moe_trace/top_k", "'2'", "from 1 to 4"],
    ),
    "top-k above experts": (
        columns(),
        {"num_experts": 4, "top_k": 5},
        ["moe_trace/top_k", "from 1 to 4"],
    ),
    "layers of the metadata differ": (
        columns(),
        FACTS | {"moe_layers": [1, 2]},
        ["moe_trace/moe_layers", "[1, 2]", "[1]"],
    ),
    "unknown order": (
        columns(),
        FACTS | {"order": "random"},
        ["moe_trace/order", "random"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_trace_is_refused_with_place_and_rule(
    name: str, tmp_path: Path
) -> None:
    """The message names file, column or key, value and rule; exit code 3."""
    data, facts, words = BROKEN[name]
    path = save(tmp_path / "broken.parquet", data, facts)
    with pytest.raises(TraceError) as caught:
        load_trace(path)
    assert caught.value.exit_code == 3
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_files_that_are_no_traces_are_refused(tmp_path: Path) -> None:
    """Missing, a folder, empty, text, Parquet without metadata: each says so."""
    text, empty = tmp_path / "text.parquet", tmp_path / "empty.parquet"
    text.write_text("GPU0 GPU1 NIC0\n")
    empty.write_bytes(b"")
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table(columns()), plain)
    wanted = {
        tmp_path / "none.parquet": "does not exist",
        tmp_path: "is a folder",
        text: "is not a Parquet file",
        empty: "is not a Parquet file",
        plain: "moe_trace or moe_counts",
    }
    for path, words in wanted.items():
        with pytest.raises(TraceError, match=words):
            load_trace(path)


def test_a_cut_off_or_damaged_file_never_escapes_as_another_error(
    tmp_path: Path,
) -> None:
    """Cut anywhere, or with bytes overwritten, it is a TraceError or reads."""
    whole = save(tmp_path / "whole.parquet", columns()).read_bytes()
    path = tmp_path / "cut.parquet"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(TraceError):
            load_trace(path)
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(4, len(whole), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_trace(path)
        except TraceError:
            refused += 1
    assert refused > 50


def test_workload_of_a_token_trace_is_refused(tmp_path: Path) -> None:
    """``FILE#NAME`` is for counts tables."""
    path = save(tmp_path / "t.parquet", columns())
    assert list_workloads(path) == ()
    with pytest.raises(TraceError, match=r"#w.*no workloads"):
        load_trace(path, workload="w")


def counts_columns(**changes: Any) -> dict[str, pa.Array]:
    found = {
        "workload": pa.array(["w", "w", "v", "v"]).dictionary_encode(),
        "phase": pa.array(["decode", "decode", "prefill", "prefill"]),
        "layer": pa.array([3, 5, 3, 5], pa.uint16()),
        "expert": pa.array([0, 2, 1, 1], pa.uint16()),
        "tokens": pa.array([10, 20, 30, 40], pa.uint64()),
    }
    return found | changes


def test_counts_are_read_by_workload(tmp_path: Path) -> None:
    """What the table does not list counts 0; layers are those of the workload."""
    path = save(
        tmp_path / "c.parquet",
        counts_columns(),
        {"num_experts": 3, "top_k": 2},
        "moe_counts",
    )
    assert list_workloads(path) == ("v", "w")
    table = load_trace(path, workload="w")
    assert isinstance(table, CountsTable)
    assert (table.workload, table.phase, table.layer_numbers) == ("w", "decode", (3, 5))
    assert table.tokens_LE.tolist() == [[10, 0, 0], [0, 0, 20]]
    with pytest.raises(TraceError, match=r"2 workloads: v, w.*c\.parquet#v"):
        load_trace(path)
    with pytest.raises(TraceError, match=r"'x' is not a workload.*choose from v, w"):
        load_trace(path, workload="x")


BROKEN_COUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "expert too large": (
        {"expert": pa.array([0, 3, 1, 1])},
        "column expert: 3 must be an expert id from 0 to 2",
    ),
    "listed twice": (
        {"layer": pa.array([3, 3, 3, 5]), "expert": pa.array([2, 2, 1, 1])},
        "layer 3, expert 2",
    ),
    "negative": (
        {"tokens": pa.array([10, -1, 3, 4])},
        "column tokens: -1 must be >= 0",
    ),
    "missing": ({"tokens": pa.array([10, None, 3, 4])}, "column tokens: must not be"),
    "overflow": (
        {"tokens": pa.array([2**63, 1, 3, 4], pa.uint64())},
        "column tokens: 9223372036854775808",
    ),
    "sum overflows": (
        {"tokens": pa.array([2**62, 2**62, 3, 4], pa.uint64())},
        "less than 2",
    ),
    "two phases": (
        {"phase": pa.array(["decode", "prefill", "prefill", "prefill"])},
        "one phase per workload",
    ),
}


@pytest.mark.parametrize("name", BROKEN_COUNTS)
def test_a_broken_counts_table_is_refused(name: str, tmp_path: Path) -> None:
    """The message names the column, the value and the rule."""
    changes, words = BROKEN_COUNTS[name]
    facts = {"num_experts": 3, "top_k": 2}
    path = save(tmp_path / "c.parquet", counts_columns(**changes), facts, "moe_counts")
    with pytest.raises(TraceError, match=words):
        load_trace(path, workload="w")


def test_counts_without_a_column_are_refused(tmp_path: Path) -> None:
    """Every column of rule 11 is needed, except the phase."""
    facts = {"num_experts": 3, "top_k": 2}
    for name in ("workload", "layer", "expert", "tokens"):
        data = counts_columns()
        del data[name]
        path = save(tmp_path / f"{name}.parquet", data, facts, "moe_counts")
        with pytest.raises(TraceError, match=f"column {name}: is missing"):
            load_trace(path, workload="w")
    data = counts_columns()
    del data["phase"]
    table = load_trace(
        save(tmp_path / "p.parquet", data, facts, "moe_counts"), workload="v"
    )
    assert isinstance(table, CountsTable)
    assert table.phase is None


def test_inline_counts_equal_a_table() -> None:
    """The counts of a request become the same record as those of a file."""
    data = {"layers": [0, 2], "tokens": [[1, 2, 3], [4, 5, 6]], "top_k": 2}
    table = inline_counts(data | {"workload": "w", "phase": "decode"})
    assert table.tokens_LE.tolist() == data["tokens"]
    assert (table.layer_numbers, table.num_experts, table.top_k) == ((0, 2), 3, 2)
    assert (table.path, table.workload, table.phase) == (None, "w", "decode")


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": [[1, 2, 3]]},
        {"tokens": [[1, 2, 3], [4, 5]]},
        {"tokens": [[1, 2, 3], [4, 5, -6]]},
        {"tokens": [[1, 2, 3], [4, 5, 6.5]]},
        {"tokens": [[], []]},
        {"layers": [2, 0]},
        {"layers": [1, 1]},
        {"layers": []},
        {"top_k": 4},
        {"top_k": 0},
        {"top_k": None},
    ],
    ids=str,
)
def test_broken_inline_counts_are_refused(change: dict[str, Any]) -> None:
    """Shape, order and range are checked before a plan is made."""
    good = {"layers": [0, 2], "tokens": [[1, 2, 3], [4, 5, 6]], "top_k": 2}
    with pytest.raises(TraceError, match="inline counts"):
        inline_counts(good | change)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """A written trace reads back with the same ids, gaps, texts and ranks."""
    ids = np.array([[0, 1], [-1, -1], [300, -1]])
    write_trace(
        tmp_path / "t.parquet",
        metadata={"model": "m", "num_experts": 301, "top_k": 2, "order": "router"},
        seq_id=[1, 1, 0],
        pos=np.array([0, 1, 0]),
        tag=["x", "y", "x"],
        phase="decode",
        experts={7: ids, 2: ids[::-1]},
        token_id=[3, 4, 5],
        rank=[0, 1, 0],
        step=[0, 0, 1],
    )
    trace = tokens(tmp_path / "t.parquet")
    assert trace.layer_numbers == (2, 7)
    assert trace.experts_LTK.tolist() == [ids[::-1].tolist(), ids.tolist()]
    assert [trace.tags[code] for code in trace.tag_T] == ["x", "y", "x"]
    assert trace.phases == ("decode",)
    assert trace.metadata["tokens"] == 3
    columns = trace.rank_T, trace.step_T, trace.pos_T, trace.token_id_T
    assert [c.tolist() for c in columns if c is not None] == [
        [0, 1, 0],
        [0, 0, 1],
        [0, 1, 0],
        [3, 4, 5],
    ]
    kinds = pq.read_schema(tmp_path / "t.parquet")
    assert str(kinds.field("e07").type) == "fixed_size_list<element: uint16>[2]"


@pytest.mark.parametrize(
    "ids", [[[0, 1]], [[0, 1, 2]] * 2, [[0, 4]] * 2, [[0, -2]] * 2]
)
def test_the_writer_refuses_what_it_could_not_read(
    tmp_path: Path, ids: list[list[int]]
) -> None:
    """Shape and range of ids are checked before a file is made."""
    with pytest.raises(ValueError, match="expert"):
        write_trace(
            tmp_path / "t.parquet",
            metadata={"num_experts": 4, "top_k": 2},
            seq_id=[0, 0],
            pos=[0, 1],
            tag="x",
            phase="prefill",
            experts={0: np.array(ids)},
        )
    assert not (tmp_path / "t.parquet").exists()


def test_the_shared_token_traces_hold_what_is_published(shared_data: Path) -> None:
    """Tokens, sequences, shape and load skew of the two token traces."""
    lite = tokens(shared_data / "traces" / "deepseek-v2-lite.parquet")
    assert lite.experts_LTK.shape == (26, 33_279, 6)
    assert lite.sequence_count == 213
    assert lite.layer_numbers == tuple(range(1, 27))
    assert lite.tags == ("intent", "law", "summary", "translation")
    assert int(lite.experts_LTK.min()) >= 0
    load = skew(expert_loads(lite.experts_LTK, 64))
    # Published to one decimal: 2.8 [1.9..3.4].
    assert {name: round(value, 1) for name, value in load.items()} == {
        "median": 2.8,
        "min": 1.9,
        "max": 3.4,
    }
    toy = tokens(shared_data / "traces" / "toy-moe-64e-grouped.parquet")
    assert toy.experts_LTK.shape == (6, 57_600, 6)
    assert toy.sequence_count == 300
    # Group-limited: the six experts of a token lie in at most three of 8 groups.
    groups = np.sort(toy.experts_LTK[0] // 8, axis=1)
    assert int((np.diff(groups, axis=1) > 0).sum(axis=1).max()) + 1 == 3


def test_the_shared_counts_hold_what_is_published(shared_data: Path) -> None:
    """Eight workloads of 58 x 256; tokens and skew of two of them."""
    path = shared_data / "traces" / "deepseek-r1_counts.parquet"
    names = list_workloads(path)
    assert len(names) == 8
    table = load_trace(path, workload="prefill_in1024")
    assert isinstance(table, CountsTable)
    assert table.tokens_LE.shape == (58, 256)
    assert table.layer_numbers == tuple(range(3, 61))
    assert (table.phase, table.top_k) == ("prefill", 8)
    assert int(table.tokens_LE.sum()) == 58 * 8 * 8_388_608
    load = skew(table.tokens_LE)
    # Published: 5.9 [3.8..13.7].
    assert [round(load[name], 1) for name in ("median", "min", "max")] == [
        5.9,
        3.8,
        13.7,
    ]
