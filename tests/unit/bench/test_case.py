"""Case files are read strictly, and their digest is of the problem."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.bench.case import Case, read_case
from planner.bench.suite import find_cases, trace_source
from planner.errors import InputError, UsageError
from planner.manifest import digest_of_file
from tests.instances import cluster

PLAIN = """
about = "a small case"
family = "made"
tags = ["fast"]
topology = "cluster.json"
model = {schema = "moe-model/1", name = "m", experts = 8}

[trace.synth]
tokens = 32
experts = 8
top_k = 2
layers = 1

[options]
traffic = "copies"
time_limit = 5
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a case beside a cluster; each pair of ``edits`` replaces text."""
    (tmp_path / "cluster.json").write_text(json.dumps(cluster([2, 2])))

    def make(*edits: tuple[str, str], name: str = "case") -> Path:
        text = PLAIN
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


def digest(path: Path) -> str:
    """The digest of a case file."""
    return read_case(path).digest


def test_a_case_is_read(write: Write) -> None:
    """Law: the name is the file's, paths are relative to it."""
    case = read_case(write())
    assert (case.name, case.family, case.tags) == ("case", "made", ("fast",))
    assert Path(case.topology).name == "cluster.json"
    assert case.expect == "plan"
    assert case.options == {"traffic": "copies", "time_limit": 5}


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("tags =", "tag ="), "/tags"),
        (('about = "a small case"', ""), "/about"),
        (("[options]", "[options]\nspeed = 3"), "/options/speed"),
        (("time_limit = 5", 'time_limit = "long"'), "/options/time_limit"),
        (('"cluster.json"', '"nowhere"'), "/topology"),
        (("tokens = 32", "tokens = 0"), "/trace/synth/tokens"),
        (("[options]", "[trace.counts]\nlayers = [0]\n[options]"), "exactly one of"),
        (('family = "made"', 'family = "made"\nknown_optimum = "x"'), "known_optimum"),
        (('family = "made"', 'family = "made"\nexpect = "luck"'), "/expect"),
        (('family = "made"', "family = made"), "not TOML"),
    ],
)
def test_a_broken_case_is_refused_at_its_place(
    edit: tuple[str, str], said: str, write: Write
) -> None:
    """Law: exit 3, file and place."""
    with pytest.raises(InputError, match=r"case\.toml") as caught:
        read_case(write(edit))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "edits",
    [
        (('about = "a small case"', 'about = "other words"'),),
        (('tags = ["fast"]', 'tags = ["full", "nightly"]'),),
        (("time_limit = 5", "time_limit = 50\nthreads = 2"),),
        (("time_limit = 5", 'time_limit = 5\nphase = "prefill"'),),
        (('traffic = "copies"\ntime_limit = 5', 'time_limit = 5\ntraffic = "copies"'),),
        (('family = "made"', 'family = "made" # comment'),),
    ],
    ids=["about", "tags", "effort", "default spelled out", "order", "comment"],
)
def test_what_does_not_change_the_problem_keeps_the_digest(
    edits: tuple[tuple[str, str], ...], write: Write
) -> None:
    """Law: words, order, effort and defaults are no part of the problem."""
    plain = digest(write())
    assert digest(write(*edits, name="other")) == plain


@pytest.mark.parametrize(
    "edits",
    [
        (('traffic = "copies"', 'traffic = "dedup_gpu"'),),
        (("tokens = 32", "tokens = 33"),),
        (("experts = 8}", "experts = 9}"),),
        (('family = "made"', 'family = "made"\nexpect = "infeasible"'),),
    ],
    ids=["option", "trace", "model", "expectation"],
)
def test_what_changes_the_problem_changes_the_digest(
    edits: tuple[tuple[str, str], ...], write: Write
) -> None:
    """Law: the baseline must not be compared with another problem."""
    plain = digest(write())
    assert digest(write(*edits, name="other")) != plain


def test_a_cluster_counts_by_its_content(write: Write, tmp_path: Path) -> None:
    """Law: its name and the order of keys do not matter, a bandwidth does."""
    plain = digest(write())
    data = cluster([2, 2])
    reordered = {key: data[key] for key in reversed(data)}
    (tmp_path / "renamed.json").write_text(json.dumps(reordered, indent=2))
    assert digest(write(("cluster.json", "renamed.json"))) == plain
    data["edges"][0]["bandwidth_gbs"] = 401
    (tmp_path / "renamed.json").write_text(json.dumps(data))
    assert digest(write(("cluster.json", "renamed.json"))) != plain


FILE = '[trace]\npath = "$PLACEMENT_TEST_DATA/t.bin"\nsha256 = "{}"\n\n[old.synth]'


def with_file(write: Write, sha256: str) -> Case:
    """A case whose trace is a file of the environment's folder."""
    text = PLAIN.partition("[trace.synth]")[0] + FILE.format(sha256)
    path = write(name="filed")
    path.write_text(text.replace("\n[old.synth]", ""), encoding="utf-8")
    return read_case(path)


def test_a_file_is_found_through_the_environment(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: the folder comes from a variable, the digest decides."""
    monkeypatch.setenv("PLACEMENT_TEST_DATA", str(tmp_path))
    (tmp_path / "t.bin").write_bytes(b"trace")
    case = with_file(write, digest_of_file(tmp_path / "t.bin"))
    assert case.trace_path == tmp_path / "t.bin"
    assert trace_source(case, tmp_path) == str(tmp_path / "t.bin")
    other = with_file(write, "0" * 64)
    with pytest.raises(InputError, match="is not the file of the case"):
        trace_source(other, tmp_path)


def test_a_file_needs_its_digest(write: Write) -> None:
    """Law: a trace that may change is no benchmark."""
    edit = ("[trace.synth]", '[trace]\npath = "t.parquet"\n[trace.synth_]')
    with pytest.raises(InputError):
        read_case(write(edit))


def test_cases_are_found_by_tag_and_name(write: Write, tmp_path: Path) -> None:
    """Law: any of the tags; names win; what is not there is a usage error."""
    write(name="a")
    write(('"fast"', '"full", "hard"'), name="b")
    assert [case.name for case in find_cases(tmp_path)] == ["a", "b"]
    assert [case.name for case in find_cases(tmp_path, tags=["hard"])] == ["b"]
    assert [case.name for case in find_cases(tmp_path, names=["a"])] == ["a"]
    with pytest.raises(UsageError, match="there are fast, full, hard"):
        find_cases(tmp_path, tags=["slow"])
    with pytest.raises(UsageError, match="a, b"):
        find_cases(tmp_path, names=["c"])
    with pytest.raises(InputError, match="no case files"):
        find_cases(tmp_path / "none")


def test_every_case_of_the_repository_reads(root: Path) -> None:
    """Law: 25 or more fast cases, digests all different, families as wished."""
    cases = find_cases(root / "benchmarks" / "cases")
    fast = [case for case in cases if "fast" in case.tags]
    assert len(fast) >= 25
    assert len({case.digest for case in cases}) == len(cases)
    assert {case.family for case in fast} >= {
        "NVLink box",
        "rail fabric",
        "unequal links",
        "degraded links",
        "one GPU per domain",
        "tight memory",
        "infeasible",
        "known optimum",
    }
