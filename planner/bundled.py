"""Data that ships with the planner: topologies, the tiny model and its trace.

In a wheel the data lies in ``planner/_data``; in a checkout it is read from
the folders ``topologies/`` and ``examples/tiny_moe/data/`` it is built from.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_WHEEL = _PACKAGE / "_data"
_CHECKOUT = {
    "topologies": _PACKAGE.parent / "topologies",
    "tiny_moe": _PACKAGE.parent / "examples" / "tiny_moe" / "data",
}


def folder(kind: str) -> Path:
    """Return the folder of bundled ``topologies`` or ``tiny_moe`` data."""
    packed = _WHEEL / kind
    return packed if packed.is_dir() else _CHECKOUT[kind]


def topology_names() -> list[str]:
    """Return the names that stand for a bundled topology, sorted."""
    return sorted(
        path.stem
        for path in folder("topologies").glob("*.json")
        if not path.stem.endswith(".schema")
    )


def topology_path(name: str) -> Path:
    """Return the file of a bundled topology."""
    return folder("topologies") / f"{name}.json"


def tiny_moe_trace() -> Path:
    """Return the recorded routing of the bundled model on held-out text."""
    return folder("tiny_moe") / "tiny-moe.parquet"


def tiny_moe_weights() -> Path:
    """Return the weights of the bundled model (NumPy ``.npz``, float16)."""
    return folder("tiny_moe") / "tiny-moe.npz"


def traces() -> dict[str, Path]:
    """Return the bundled traces by the name of the model they fit."""
    return {"tiny-moe": tiny_moe_trace()}
