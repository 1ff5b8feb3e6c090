"""The published JSON Schema of cluster files, generated from the models."""

from typing import Any

from pydantic import TypeAdapter

from planner.topology.generators import GENERATORS
from planner.topology.models import GeneratorFile, TopologyFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLACE = "#/$defs/{model}"


def json_schema() -> dict[str, Any]:
    """Return the schema of node-link and generator files."""
    adapter: TypeAdapter[object] = TypeAdapter(TopologyFile | GeneratorFile)
    schema = adapter.json_schema(ref_template=_PLACE)
    defs = schema["$defs"]
    kinds = []
    for name in GENERATORS.names():
        made = GENERATORS.get(name).parameters.model_json_schema(ref_template=_PLACE)
        defs.update(made.pop("$defs", {}))
        made["properties"]["kind"] = {"const": name}
        kinds.append(made)
    defs["GeneratorFile"]["properties"]["generator"] = {"anyOf": kinds}
    return {"$schema": DIALECT, "title": "moe-topology/1", **schema}
