"""Token ids for source code: frequent pieces, and bytes for everything else.

Ids 0..255 are bytes, 256 separates files, and the rest are the pieces that
occur most often, with ties broken by the pieces themselves.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

SEPARATOR = 256
FIRST_PIECE = 257
_PIECE = re.compile(
    r"\n[ ]*"  # a line end with the next line's indent
    r"|[ ]?[A-Z]?[a-z]+|[ ]?[A-Z]+"  # parts of words, with the space before
    r"|0x[0-9a-fA-F]+|[0-9]{1,3}"
    r"|[ ]?[^\w\s]{1,3}"  # operators and punctuation
    r"|[ ]+|_|.",
    re.DOTALL,
)


@dataclass(frozen=True)
class Tokenizer:
    """Splits text into pieces and numbers them.

    Parameters
    ----------
    pieces
        Pieces of ids ``FIRST_PIECE`` and up.
    """

    pieces: list[str]

    @classmethod
    def fit(cls, texts: Iterable[str], vocab: int) -> "Tokenizer":
        """Take the most frequent pieces of ``texts`` for ``vocab`` ids."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_PIECE.findall(text))
        # A piece of one byte has an id already.
        found = [(n, piece) for piece, n in counts.items() if len(piece.encode()) > 1]
        found.sort(key=lambda item: (-item[0], item[1]))
        return cls([piece for _, piece in found[: vocab - FIRST_PIECE]])

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: FIRST_PIECE + i for i, piece in enumerate(self.pieces)}

    def encode(self, text: str) -> list[int]:
        """Return token ids for ``text``."""
        ids: list[int] = []
        for piece in _PIECE.findall(text):
            known = self._ids.get(piece)
            if known is None:
                ids.extend(piece.encode("utf-8", errors="replace"))
            else:
                ids.append(known)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of token ids; a separator becomes an empty line."""
        data = b"".join(
            bytes([i])
            if i < SEPARATOR
            else b"\n\n"
            if i == SEPARATOR
            else self.pieces[i - FIRST_PIECE].encode()
            for i in ids
        )
        return data.decode("utf-8", errors="replace")
