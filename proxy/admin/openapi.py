"""The API's own description, put together from the route modules.

Owns: the frame (info, security, shared answers) and the words that descriptions
are made of. Must never: describe a path itself; each module describes its own in
``OPENAPI_PATHS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from types import ModuleType
from typing import Any

from proxy.admin.exports import EXPORTS
from proxy.admin.tables import FORMATS

Schema = dict[str, Any]

_TABLES: Schema = {
    "text/csv": {"schema": {"type": "string"}},
    "application/vnd.apache.parquet": {"schema": {}},
}
_ERROR = {
    "description": "What went wrong",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {
                        "type": "object",
                        "required": ["status", "message"],
                        "properties": {
                            "status": {"type": "integer"},
                            "message": {"type": "string"},
                        },
                    }
                },
            }
        }
    },
}
#: Bad parameters, no valid token, too low a role, too many failed attempts.
_EVERYWHERE = (400, 401, 403, 429)


def shape(title: str, required: int, **properties: Schema) -> Schema:
    """An object whose first ``required`` properties are always there.

    One with a title has a place of its own in the documentation.
    """
    return {
        **({"title": title} if title else {}),
        "type": "object",
        "required": list(properties)[:required],
        "properties": properties,
    }


def list_of(items: Schema) -> Schema:
    """An array."""
    return {"type": "array", "items": items}


def query(name: str, schema: Schema, description: str) -> Schema:
    """An optional query parameter."""
    return {"name": name, "in": "query", "schema": schema, "description": description}


def path_id(description: str) -> Schema:
    """The parameter of a path that ends in an id."""
    schema = {"type": "string", "minLength": 1}
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
    }


def answer(schema: Schema, description: str = "As asked", *, tabular: bool = False) -> Schema:
    """An answer in JSON; a tabular one as CSV and Parquet too."""
    content: Schema = {"application/json": {"schema": schema}}
    if tabular:
        content.update(_TABLES)
    return {"description": description, "content": content}


def errors(*statuses: int) -> Schema:
    """What a route may answer beside its good answer and what the guard answers."""
    return {str(status): {"$ref": "#/components/responses/Error"} for status in statuses}


def document(version: str, modules: Sequence[ModuleType]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of all modules' paths."""
    paths: dict[str, Any] = {}
    for module in modules:
        for path, item in deepcopy(module.OPENAPI_PATHS).items():
            for method, operation in item.items():
                if method in ("get", "post", "put", "patch", "delete"):
                    _complete(operation)
            paths.setdefault(path, {}).update(item)
    for path, tables in EXPORTS.items():
        if path in paths:
            _add_exports(paths[path]["get"], list(tables))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tokenweir admin API",
            "version": version,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"session": []}],
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "tokenweir_session"},
            },
            "responses": {"Error": _ERROR},
        },
        "paths": paths,
    }


def _add_exports(operation: dict[str, Any], tables: list[str]) -> None:
    """Say how a list is taken away."""
    parameters = operation.setdefault("parameters", [])
    parameters.append(
        query(
            "format",
            {"type": "string", "enum": list(FORMATS), "default": "json"},
            "Form of the answer.",
        )
    )
    if len(tables) > 1:
        words = {"type": "string", "enum": tables, "default": tables[0]}
        parameters.append(query("table", words, "Which table of it, as CSV or Parquet."))
    good = operation["responses"]["200"]
    good.setdefault("content", {"application/json": {"schema": {}}}).update(_TABLES)


def _complete(operation: dict[str, Any]) -> None:
    """Add the answers that the guard gives on every path."""
    responses = operation.setdefault("responses", {})
    if operation.get("security") == []:
        return
    for status, told in errors(*_EVERYWHERE).items():
        responses.setdefault(status, told)
