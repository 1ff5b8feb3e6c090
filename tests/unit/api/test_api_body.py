"""What the body guard lets through, and what it turns away."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from api.body import check_json
from api.errors import Problem
from api.settings import Settings
from tests.unit.api.conftest import Call, RecordingRunner, assert_problem, chunks

Post = Callable[[bytes], httpx.Response]
HEAD = b'{"topology": "toy-2x2", "options": '
DEEP = 100_000

NOT_PLAIN_JSON = {
    "empty": b"",
    "spaces": b"   ",
    "text": b"topology.json",
    "half an object": b'{"topology": "toy',
    "two documents": b"{}{}",
    "trailing comma": b'{"topology": "toy-2x2",}',
    "single quotes": b"{'topology': 'toy-2x2'}",
    "comment": b'{"topology": "toy-2x2"} // mine',
    "NaN": HEAD + b'{"gap": NaN}}',
    "Infinity": HEAD + b'{"time_limit": Infinity}}',
    "-Infinity": HEAD + b'{"time_limit": -Infinity}}',
    "1e999": HEAD + b'{"time_limit": 1e999}}',
    "-1e999": HEAD + b'{"gap": -1e999}}',
    "NaN where nothing looks": b'{"topology": {"x": NaN}}',
    "1e999 in a topology": b'{"topology": {"edges": [{"bandwidth_gbs": 1e999}]}}',
    "5,000 digits": HEAD + b'{"seed": ' + b"9" * 5000 + b"}}",
    "5,000 decimals": HEAD + b'{"gap": 0.' + b"1" * 5000 + b"}}",
    "deep array": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "deep and never closed": b"[" * DEEP,
    "deep behind a bracket in a string": b'["]]]]",' + b"[" * DEEP + b"]" * DEEP + b"]",
    "one level too deep": b'{"topology": {"x": ' + b"[" * 63 + b"]" * 63 + b"}}",
    "duplicate key": b'{"topology": "toy-2x2", "topology": "dgx-h100-1"}',
    "duplicate key inside": HEAD + b'{"seed": 1, "seed": 2}}',
    "duplicate by escape": b'{"topology": "toy-2x2", "t\\u006fpology": "toy-2x2"}',
    "lone surrogate": b'{"topology": "\\ud800"}',
    "lone low surrogate": b'{"topology": "\\udc00"}',
    "surrogate in a key": b'{"\\ud800": 1}',
    "surrogate deep inside": b'{"topology": {"nodes": [{"id": "\\uDBFF"}]}}',
    "raw surrogate bytes": b'{"topology": "\xed\xa0\x80"}',
    "latin-1": b'{"topology": "caf\xe9"}',
    "byte order mark": b'\xef\xbb\xbf{"topology": "toy-2x2"}',
    "UTF-16": '{"topology": "toy-2x2"}'.encode("utf-16"),
    "UTF-32": '{"topology": "toy-2x2"}'.encode("utf-32"),
    "raw control character": b'{"topology": "toy\n2x2"}',
    "NUL": b"\0",
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("raw", NOT_PLAIN_JSON.values(), ids=NOT_PLAIN_JSON)
def test_what_is_not_plain_json_is_a_400(
    raw: bytes, post: Post, runner: RecordingRunner
) -> None:
    """Law: any body that two parsers could read differently is refused, quickly."""
    started = time.perf_counter()
    assert_problem(post(raw), 400)
    assert time.perf_counter() - started < 1.0
    assert not runner.requests


@pytest.mark.parametrize(
    "raw",
    [
        b'{"topology": "toy-2x2"}',
        b' \n{"topology":\t"toy-2x2"}\r\n',
        b'{"topology": "toy-2x2", "options": {"gap": 1e-3, "seed": 7}}',
        b'{"topology": {"note": "[[[[ \\" \\ud83d\\ude00 {{{{"}}',
        '{"topology": {"note": "é 中 😀"}}'.encode(),
        b'{"topology": {"x": ' + b"[" * 62 + b"]" * 62 + b"}}",
    ],
)
def test_plain_json_reaches_the_runner_unchanged(
    raw: bytes, post: Post, runner: RecordingRunner
) -> None:
    """Law: escapes, brackets in strings, spaces and the last legal depth pass."""
    assert post(raw).status_code == 200
    assert len(runner.requests) == 1


def test_a_body_over_the_cap_is_a_413(call: Call) -> None:
    """Law: the cap holds when the length is announced."""
    raw = b'{"topology": "' + b"a" * Settings().body_bytes + b'"}'
    headers = {"content-type": "application/json"}
    assert_problem(call("POST", "/plan", content=raw, headers=headers), 413)


def test_a_chunked_body_over_the_cap_is_a_413(call: Call) -> None:
    """Law: the cap holds when no length is announced."""
    raw = b'{"topology": "' + b"a" * Settings().body_bytes + b'"}'
    headers = {"content-type": "application/json"}
    body = chunks(raw, 2**20)
    assert_problem(call("POST", "/plan", content=body, headers=headers), 413)


def test_a_lying_content_length_does_not_lift_the_cap(call: Call) -> None:
    """Law: what is read counts, not what was announced."""
    raw = b'{"topology": "' + b"a" * Settings().body_bytes + b'"}'
    headers = {"content-type": "application/json", "content-length": "10"}
    assert_problem(call("POST", "/plan", content=raw, headers=headers), 413)


@pytest.mark.parametrize("raw", [b"[" + b"1," * 99 + b"1]", b"[" * 50 + b"{" * 50])
def test_too_many_values_are_a_413(raw: bytes) -> None:
    """Law: a small body may not hold millions of values."""
    with pytest.raises(Problem) as caught:
        check_json(raw, Settings(json_values=99))
    assert caught.value.status == 413


SIZE = 4 * 2**20
LONG = {
    "a string": b'"' + b"a" * SIZE + b'"',
    "escapes": b'"' + b"\\n" * (SIZE // 2) + b'"',
    "a string that never ends": b'"' + b'\\"' * (SIZE // 2),
    "a string that ends in a backslash": b'"' + b'\\"' * (SIZE // 2) + b"\\",
    "quotes": b'"' * SIZE,
    "brackets": b"[" * SIZE,
    "digits": b"9" * SIZE,
    "spaces": b" " * SIZE,
    "surrogates": b'["' + b"\\ud800" * (SIZE // 6) + b'"]',
    "objects": b"[" + b"{}," * 400_000 + b"{}]",
    "keys": b"{" + b",".join(b'"%d":1' % key for key in range(400_000)) + b"}",
}


@pytest.mark.parametrize("raw", LONG.values(), ids=LONG)
def test_no_body_is_read_in_more_than_linear_time(raw: bytes) -> None:
    """Law: the guard looks at every byte a bounded number of times."""
    started = time.perf_counter()
    with contextlib.suppress(Problem):
        check_json(raw, Settings())
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": ""},
        {"content-type": "application/json", "content-encoding": "gzip"},
        {"content-type": "application/json", "content-encoding": "zstd"},
    ],
)
def test_other_media_types_and_encodings_are_a_415(
    headers: dict[str, str], call: Call
) -> None:
    """Law: nothing is unpacked and nothing is guessed."""
    response = call("POST", "/plan", content=b'{"topology": "x"}', headers=headers)
    assert_problem(response, 415)


def test_a_charset_beside_the_media_type_is_fine(call: Call) -> None:
    """Law: only the media type decides."""
    headers = {"content-type": "application/json; charset=utf-8"}
    raw = b'{"topology": "toy-2x2"}'
    assert call("POST", "/plan", content=raw, headers=headers).status_code == 200


@pytest.mark.parametrize("settings", [Settings(body_seconds=0.05)])
def test_a_body_that_never_ends_is_a_408(call: Call, settings: Settings) -> None:
    """Law: a slow client does not hold a place for ever."""

    async def drip() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.01)

    headers = {"content-type": "application/json"}
    assert_problem(call("POST", "/plan", content=drip(), headers=headers), 408)
