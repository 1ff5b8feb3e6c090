"""The manifest: strict reading, whole writing, digests that mean something."""

import json
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ManifestError
from planner.manifest import (
    canonical_json,
    digest_of_counts,
    digest_of_file,
    digest_of_json,
    digest_of_manifest,
    exact_text,
    gap_of,
    json_schema,
    manifest_data,
    parse_manifest,
    pretty_json,
    read_manifest,
    write_manifest,
)
from tests.oracles.manifest_data import plan_data, prediction


def changed(path: str, value: object) -> dict:
    """The manifest with one place set; ``DROP`` removes it."""
    data = plan_data()
    at = data
    *parents, last = path.strip("/").split("/")
    for key in parents:
        at = at[int(key)] if isinstance(at, list) else at[key]
    last = int(last) if isinstance(at, list) else last
    if value is DROP:
        del at[last]
    else:
        at[last] = value
    return data


DROP = object()


def test_writing_and_reading_is_the_identity(tmp_path: Path) -> None:
    """Law: what is read is what was written, and writing again gives its bytes."""
    manifest = parse_manifest(plan_data())
    write_manifest(manifest, tmp_path / "plan.json")
    first = (tmp_path / "plan.json").read_bytes()
    again = read_manifest(tmp_path / "plan.json")
    write_manifest(again, tmp_path / "plan.json")
    assert again == manifest
    assert (tmp_path / "plan.json").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("/schema", "moe-plan/2", "/schema"),
        ("/schema", DROP, "/schema"),
        ("/layers/0/colour", "red", "/layers/0/colour"),
        ("/layers/0/slots/0/1", -1, "/layers/0/slots/0/1"),
        ("/layers/0/slots/0/1", "1", "/layers/0/slots/0/1"),
        ("/layers/0/slots/0/1", 1.5, "/layers/0/slots/0/1"),
        ("/layers/0/split/1/*", [1, -1], "weights"),
        ("/layers/0/split/1/*", [0, 0], "weights"),
        ("/layers/0/split/1/*", [1], "one weight per copy"),
        ("/layers/0/split/9", {"*": [1]}, "one weight per copy"),
        ("/layers/0/split/1/first", [1, 1], "DP rank"),
        ("/layers/0/layer", 7, "prediction.layers"),
        ("/gpus/1", "a", "gpus: ids must differ"),
        ("/traffic", "multicast", "/traffic"),
        ("/inputs/topology/sha256", "abc", "/inputs/topology/sha256"),
        ("/objective/value_exact", "1/0", "/objective/value_exact"),
        ("/prediction/q", "0", "/prediction/q"),
        ("/prediction/gpus", [], "/prediction/gpus"),
        ("/holdout", None, "holdout_reason"),
        ("/provenance", DROP, "/provenance"),
    ],
)
def test_what_the_format_does_not_allow_is_refused_by_place(path, value, says) -> None:
    """Law: unknown keys, wrong types and impossible values name their place."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(changed(path, value), where="plan.json")
    assert says in str(caught.value)
    assert "plan.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("[1]", "/schema"),
        ('{"schema": "moe-plan/1", "schema": "moe-plan/1"}', "twice"),
        ("{" + '"a":[' * 3000, "is not JSON"),
        ("\udcff".encode("utf-8", "surrogatepass"), "is not JSON"),
    ],
)
def test_text_that_is_no_manifest_is_refused(text, says) -> None:
    """Law: broken JSON, a repeated key and bad UTF-8 are one clear error."""
    with pytest.raises(ManifestError, match=says):
        parse_manifest(text)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1.0"])
def test_a_value_must_be_a_finite_number(number) -> None:
    """Law: NaN, infinity and negative loads cannot be read."""
    text = json.dumps(changed("/objective/value", "@")).replace('"@"', number)
    with pytest.raises(ManifestError):
        parse_manifest(text)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    """Law: the message names the path."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ManifestError, match=str(path)):
            read_manifest(path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    """Law: the target is whole or absent, and no temporary file stays."""
    manifest = parse_manifest(plan_data())
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(ManifestError, match="cannot be written"):
        write_manifest(manifest, tmp_path / "plan.json")
    with pytest.raises(ManifestError, match="cannot be written"):
        write_manifest(manifest, tmp_path / "missing" / "plan.json")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_the_manifest_digest_ignores_timings_and_nothing_else() -> None:
    """Rule 31: seconds are outside the digest."""
    base = digest_of_manifest(parse_manifest(plan_data()))
    for path in ("/provenance/seconds", "/provenance/history/0/seconds"):
        assert digest_of_manifest(parse_manifest(changed(path, 99.0))) == base
    for path, value in (("/provenance/seed", 1), ("/layers/0/slots/0/0", 2)):
        assert digest_of_manifest(parse_manifest(changed(path, value))) != base


def test_canonical_json_is_sorted_tight_and_unescaped() -> None:
    """Rule 31, on the bytes."""
    assert canonical_json({"b": [1, None], "a": "é"}) == '{"a":"é","b":[1,null]}'
    assert digest_of_json({}) == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )


def test_the_digest_of_a_file_is_of_its_bytes(tmp_path: Path) -> None:
    """SHA-256 of ``abc`` is a published test vector."""
    (tmp_path / "x").write_bytes(b"abc")
    assert digest_of_file(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(ManifestError, match="cannot be read"):
        digest_of_file(tmp_path / "y")


def test_the_digest_of_counts_is_of_the_text_in_the_manual() -> None:
    """The example of docs/manifest.md: [[0, 4], [6, 0]] over 2."""
    text = b"2x2/1\n1 2\n2 3\n"
    expected = sha256(text).hexdigest()
    assert digest_of_counts(np.asarray([[0, 4], [6, 0]]), 2) == expected
    assert digest_of_counts(np.zeros((2, 2), dtype=np.int64), 7) == (
        sha256(b"2x2/1\n").hexdigest()
    )


@given(
    st.lists(st.integers(0, 2**80), min_size=6, max_size=6),
    st.integers(1, 50),
    st.integers(1, 10**30),
)
def test_equal_rationals_have_equal_digests(values, denominator, factor) -> None:
    """Law: the digest sees the value, not how it was written."""
    exact = np.asarray(values, dtype=object).reshape(2, 3)
    assert digest_of_counts(exact, denominator) == digest_of_counts(
        exact * factor, denominator * factor
    )
    more = exact.copy()
    more[1, 2] += 1
    assert digest_of_counts(more, denominator) != digest_of_counts(exact, denominator)


def test_the_busiest_link_of_each_class_is_the_slowest_and_first() -> None:
    """Both legs by hand: q = 2, 10 bytes out, 20 back."""
    found = {
        (entry.leg, entry.link_class): (
            entry.link,
            entry.tokens_exact,
            entry.bytes,
            entry.seconds_exact,
        )
        for entry in prediction().busiest
    }
    assert found == {
        ("dispatch", "nvlink:gpu>gpu"): ("a -> b", "2/1", 20.0, "2/1"),
        ("dispatch", "ib:gpu>switch0"): ("a -> s", "3/4", 15.0, "5/1"),
        ("dispatch", "group:rack"): ("group:rack", "3/4", 15.0, "15/4"),
        ("combine", "nvlink:gpu>gpu"): ("b -> a", "2/1", 40.0, "4/1"),
        ("combine", "ib:gpu>switch0"): ("s -> a", "3/2", 30.0, "10/1"),
        ("combine", "group:rack"): ("group:rack", "3/2", 30.0, "15/2"),
    }
    equal = prediction(loads_2A=[[4, 4, 0, 0, 0], [0] * 5]).busiest
    assert [(entry.leg, entry.link) for entry in equal] == [("dispatch", "a -> b")]


def test_totals_are_reduced_rationals() -> None:
    """Three transfers over 2 in each direction between domains."""
    layer = prediction(denominator=2)
    assert layer.transfers_exact == layer.inter_domain_transfers_exact == "3/2"
    assert exact_text(Fraction(4, 6)) == "2/3"
    assert exact_text(0) == "0/1"


def test_the_gap_is_relative_to_the_objective() -> None:
    """Rule 28: 0 if the objective is 0."""
    assert gap_of(Fraction(4), 3.0) == 0.25
    assert gap_of(Fraction(0), 0.0) == 0.0


def test_the_gap_is_never_negative() -> None:
    """Law: a bound is a float, at times the next above the exact objective."""
    below = Fraction(1, 10)
    assert Fraction(0.1) > below
    assert gap_of(below, 0.1) == 0.0


def test_the_published_schema_is_current_and_accepts_what_is_written(
    root: Path,
) -> None:
    """Law: docs/moe-plan.schema.json is made from the models."""
    published = json.loads((root / "docs" / "moe-plan.schema.json").read_text())
    assert published == json_schema()
    validator = jsonschema.Draft202012Validator(published)
    validator.validate(manifest_data(parse_manifest(plan_data())))
    for path, value in (("/schema", DROP), ("/layers/0/colour", 1), ("/gpus", [])):
        assert not validator.is_valid(changed(path, value))


def test_every_key_of_the_format_is_described(root: Path) -> None:
    """Law: docs/manifest.md names every key of the schema."""
    text = (root / "docs" / "manifest.md").read_text()
    schema = json_schema()
    keys = set(schema["properties"])
    for record in schema["$defs"].values():
        keys |= set(record.get("properties", {}))
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_pretty_json_breaks_only_what_is_long() -> None:
    """Law: the text is JSON of the same value, short values on one line."""
    value = {"short": [1, 2], "long": [list(range(20))] * 3, "empty": {}}
    text = pretty_json(value)
    assert json.loads(text) == value
    assert '  "short": [1, 2],\n' in text
    assert max(map(len, text.splitlines())) <= 100
