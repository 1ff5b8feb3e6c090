"""The text of the bundled model: themes, the held-out split, token ids."""

from pathlib import Path

import pytest

from examples.tiny_moe.corpus import TAGS, Document, digest, documents
from examples.tiny_moe.tokenizer import FIRST_PIECE, SEPARATOR, Tokenizer

CODE = 'def f(x):\n    """Caf\u00e9 \U0001f600."""\n    return x_1 + 0xFF  # ok\n'


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A standard library of four files, one of them generated."""
    for path, text in {
        "json/decoder.py": "x = 1\n",
        "asyncio/base.py": "y = 2\n",
        "shutil.py": '"""Copy files."""\ndef move():\n    """Move one."""\n    z = 3\n',
        "site-packages/six.py": "no = 1\n",
        "_sysconfigdata_x.py": "no = 1\n",
        "test/test_all.py": "no = 1\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_documents_have_a_theme_or_give_their_docstrings(library: Path) -> None:
    """Law: paths in order; code by theme, docstrings of all else, nothing foreign."""
    found = [(d.path, d.tag, d.text) for d in documents(library)]
    assert found == [
        ("asyncio/base.py", "async", "y = 2\n"),
        ("json/decoder.py", "formats", "x = 1\n"),
        ("shutil.py", "docs", "Copy files.\n\nMove one."),
    ]


def test_the_digest_sees_every_part_and_the_order() -> None:
    """Law: another path, tag, text or order is another corpus."""
    one, two = Document("a.py", "net", "bc"), Document("d.py", "gui", "e")
    corpora = [
        [one, two],
        [two, one],
        [one],
        [Document("a.pyn", "et", "bc"), two],
        [Document("a.py", "net", "bd"), two],
    ]
    assert len({digest(corpus) for corpus in corpora}) == len(corpora)


def test_this_library_holds_out_some_files_of_every_tag() -> None:
    """Law: about one file in nine is kept from training, in every theme."""
    corpus = documents()
    for tag in TAGS:
        kept = [document.held_out for document in corpus if document.tag == tag]
        assert 0 < sum(kept) < len(kept) / 3, tag


def test_tokens_decode_to_the_text() -> None:
    """Law: known pieces and bytes together lose nothing."""
    tokenizer = Tokenizer.fit([CODE] * 2, 280)
    ids = tokenizer.encode(CODE)
    assert tokenizer.decode(ids) == CODE
    assert max(ids) >= FIRST_PIECE
    assert SEPARATOR not in ids
    assert Tokenizer([]).decode(Tokenizer([]).encode(CODE)) == CODE


def test_the_vocabulary_is_the_most_frequent_pieces() -> None:
    """Law: by count, ties by the piece; the same text gives the same ids."""
    texts = ["bb aa bb", " aa cc"]
    assert Tokenizer.fit(texts, FIRST_PIECE + 3).pieces == [" aa", " bb", " cc"]
    assert Tokenizer.fit(texts, FIRST_PIECE + 1).pieces == [" aa"]
