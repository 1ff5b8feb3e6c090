"""The published OpenAPI document: what FastAPI finds, and the problems."""

from typing import Any

from fastapi import FastAPI

from api.errors import MEDIA_TYPE, ProblemDetails

_REF = "#/components/schemas/{model}"


def problem_responses(statuses: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of these statuses, each a problem."""
    schema = {"$ref": _REF.format(model=ProblemDetails.__name__)}
    return {
        status: {"description": text, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, text in statuses.items()
    }


def install(app: FastAPI) -> None:
    """Publish the schema of problems, which no route names by itself."""
    generate = app.openapi

    def document() -> dict[str, Any]:
        found = generate()
        schema = ProblemDetails.model_json_schema(ref_template=_REF)
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas |= schema.pop("$defs")
        schemas[ProblemDetails.__name__] = schema
        return found

    # FastAPI documents this assignment as the way to extend the document.
    app.openapi = document  # type: ignore[method-assign]
