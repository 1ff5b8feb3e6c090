"""The training text: the Python standard library's source, by theme.

Every theme is a tag. Which files are held out follows from the SHA-256 of
their relative path, so the split needs no list and no random numbers.
"""

import ast
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

THEMES: dict[str, str] = {
    "async": "asyncio concurrent multiprocessing threading queue selectors "
    "socketserver asyncore asynchat subprocess signal sched contextvars",
    "net": "email html http urllib xmlrpc wsgiref ftplib smtplib smtpd imaplib "
    "poplib nntplib telnetlib socket ssl cgi mailbox ipaddress",
    "encodings": "encodings codecs stringprep base64 quopri",
    "testing": "unittest doctest pdb bdb trace timeit cProfile profile pstats "
    "cmd traceback",
    "gui": "tkinter idlelib turtle turtledemo curses",
    "formats": "json xml csv configparser plistlib tomllib tarfile zipfile gzip "
    "bz2 lzma pickle pickletools shelve dbm sqlite3 wave aifc sunau chunk xdrlib",
}
"""Top-level modules and packages by tag; the docstrings of all others: docs."""
TAGS = [*THEMES, "docs"]
_SKIPPED = {"site-packages", "__pycache__", "test", "tests", "idle_test", "lib2to3"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Document:
    """One file of the corpus: its path relative to the library, and text."""

    path: str
    tag: str
    text: str

    @property
    def held_out(self) -> bool:
        """Whether the file is kept from training: about one in nine."""
        return hashlib.sha256(self.path.encode()).digest()[0] < 28


def _docstrings(text: str) -> str:
    nodes = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, _DOCUMENTED)
    )
    return "\n\n".join(found for node in nodes if (found := ast.get_docstring(node)))


def documents(root: Path | None = None) -> list[Document]:
    """Return the corpus in the order of its relative paths.

    Parameters
    ----------
    root
        Folder of the standard library; by default that of this interpreter.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    themes = {name: tag for tag, names in THEMES.items() for name in names.split()}
    found = []
    for path in sorted(root.rglob("*.py"), key=lambda path: path.as_posix()):
        parts = path.relative_to(root).parts
        generated = parts[0].startswith(("_sysconfigdata", "config-"))
        if generated or not _SKIPPED.isdisjoint(parts):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        tag = themes.get(parts[0].removesuffix(".py"), "docs")
        if tag == "docs":
            text = _docstrings(text)
        if text.strip():
            found.append(Document("/".join(parts), tag, text))
    return found


def digest(corpus: list[Document]) -> str:
    """Return the SHA-256 over paths, tags and texts, in order."""
    state = hashlib.sha256()
    for document in corpus:
        for part in (document.path, document.tag, document.text):
            data = part.encode("utf-8", errors="surrogatepass")
            state.update(len(data).to_bytes(8, "big") + data)
    return state.hexdigest()
