"""Reads clusters: a bundled name, a file, or an inline dict (``moe-topology/1``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from planner import bundled
from planner.errors import TopologyError
from planner.topology.build import Source, build
from planner.topology.generators import expand
from planner.topology.graph import ClusterTopology
from planner.topology.models import Edge, GeneratorFile, TopologyFile
from planner.topology.reading import check_json, pointer_error, read_json
from planner.topology.warn import warned

MAJOR = "moe-topology/1"


def load_topology(
    source: str | Path | Mapping[str, Any], *, where: str = ""
) -> ClusterTopology:
    """Return the cluster of a bundled name, a file or an inline dict.

    Parameters
    ----------
    source
        A name of :func:`planner.bundled.topology_names`, the path of a node-link
        or generator file, or the content of one.
    where
        What messages call an inline dict.

    Raises
    ------
    TopologyError
        With file, JSON pointer, value, rule and the way out.
    """
    value, place, name = load_json(source, where=where)
    return parse_topology(value, where=place, name=name)


def load_json(
    source: str | Path | Mapping[str, Any], *, where: str = ""
) -> tuple[dict[str, Any], str, str]:
    """Return the node-link JSON (generators expanded), its place and its name."""
    if isinstance(source, Mapping):
        place, name, value = where or "topology", "inline", dict(source)
        check_json(value, place)
    else:
        path = find_topology(source)
        place, name, value = str(path), path.stem, read_json(path)
    if not isinstance(value, dict):
        raise TopologyError(
            "is not a JSON object", where=place, fix="give a moe-topology/1 file"
        )
    if "generator" in value:
        value = _generated(value, place, name)
    return value, place, name


def find_topology(source: str | Path) -> Path:
    """Return the file of a bundled name or of a path."""
    path = Path(source)
    names = bundled.topology_names()
    if isinstance(source, str) and source in names and not path.is_file():
        return bundled.topology_path(source)
    bare = isinstance(source, str) and path.name == source and not path.suffix
    if bare and not path.exists():
        raise TopologyError(
            "is neither a file nor a bundled topology",
            where="topology",
            value=source,
            fix=f"choose from {', '.join(names)}, or give the path of a file",
        )
    return path


def parse_topology(
    value: Mapping[str, Any], *, where: str, name: str
) -> ClusterTopology:
    """Return the cluster of node-link JSON; ``name`` stands in for a missing one."""
    _check_schema(value, where)
    try:
        record = TopologyFile.model_validate(value)
    except ValidationError as error:
        raise pointer_error(error, where) from None
    edges, key = _edges(record, where)
    made = build(record, edges, Source(where=where, edges_key=key, fallback_name=name))
    return warned(made, record, edges)


def _generated(value: Mapping[str, Any], where: str, name: str) -> dict[str, Any]:
    _check_schema(value, where)
    try:
        record = GeneratorFile.model_validate(value)
    except ValidationError as error:
        raise pointer_error(error, where) from None
    made = expand(record.generator, where=where)
    expanded: dict[str, Any] = {
        "schema": record.schema_name,
        "directed": True,
        "multigraph": False,
        "graph": {"name": name, **record.graph},
        **made,
    }
    if record.workload is not None:
        expanded["workload"] = record.workload.model_dump(exclude_none=True)
    return expanded


def _check_schema(value: Mapping[str, Any], where: str) -> None:
    given = value.get("schema")
    known = isinstance(given, str) and (given == MAJOR or given.startswith(f"{MAJOR}."))
    if not known:
        raise TopologyError(
            f"must be {MAJOR}",
            where=f"{where} /schema",
            value=given,
            fix=f'add "schema": "{MAJOR}"; other major versions are not read',
        )


def _edges(record: TopologyFile, where: str) -> tuple[list[Edge], str]:
    if record.edges is not None and record.links is not None:
        raise TopologyError(
            "stands beside edges: two lists of the same thing",
            where=f"{where} /links",
            fix="keep edges",
        )
    if record.links is not None:
        return record.links, "links"
    return record.edges or [], "edges"
