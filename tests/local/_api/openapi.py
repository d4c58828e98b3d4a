"""An OpenAPI document of the responses of the embedded platform.

It lists the responses that a caller must handle. An invalid number gives a 500 with the name of a
Java exception, and every delete gives a 200, as on CANFAR's servers.
"""

from __future__ import annotations

from typing import Any, Final

from kaleden.local._platform._model import Kind, Status

Schema = dict[str, Any]

_NUMBER: Final[Schema] = {"type": ["string", "null"]}
_SESSION: Final[Schema] = {
    "type": "object",
    "required": ["id", "userid", "image", "type", "status", "name"],
    "properties": {
        "id": {"type": "string", "minLength": 8},
        "userid": {"type": "string"},
        "runAsUID": {"type": "string"},
        "runAsGID": {"type": "string"},
        "supplementalGroups": {"type": "array"},
        "appid": {"type": "string"},
        "image": {"type": "string"},
        "type": {"enum": [*Kind]},
        "status": {"enum": [*Status]},
        "name": {"type": "string"},
        "startTime": {"type": ["string", "null"]},
        "expiryTime": {"type": ["string", "null"]},
        "connectURL": {"type": "string"},
        "requestedRAM": _NUMBER,
        "requestedCPUCores": _NUMBER,
        "requestedGPUCores": _NUMBER,
        "ramInUse": _NUMBER,
        "cpuCoresInUse": _NUMBER,
        "isFixedResources": {"type": "boolean"},
    },
}
_PUBLIC_SESSION: Final[Schema] = {
    "type": "object",
    "required": ["userid", "type", "status"],
    "properties": {name: _SESSION["properties"][name] for name in ("userid", "type", "status")},
}
_STATISTICS: Final[Schema] = {
    "type": "object",
    "required": ["cores", "ram", "gpu"],
    "properties": {name: {"type": "object"} for name in ("cores", "ram", "gpu")},
}
_IMAGES: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["id", "types"],
        "properties": {"id": {"type": "string"}, "types": {"type": "array"}},
    },
}
_SESSIONS: Final[Schema] = {
    "anyOf": [
        {"type": "array", "items": {"$ref": "#/components/schemas/Session"}},
        {"type": "array", "items": _PUBLIC_SESSION},
        _STATISTICS,
    ]
}
_CREATE: Final[dict[str, Schema]] = {
    "name": {"type": "string", "pattern": "^[A-Za-z0-9-]+$"},
    "image": {"type": "string", "examples": ["images.canfar.net/skaha/astroml:latest"]},
    "type": {"enum": [kind for kind in Kind if kind is not Kind.DESKTOP_APP]},
    "cores": {"type": "integer", "minimum": 1},
    "ram": {"type": "integer", "minimum": 1},
    "gpus": {"type": "integer", "minimum": 1},
    "cmd": {"type": "string"},
    "args": {"type": "string"},
    "env": {"type": "array", "items": {"type": "string"}},
}
_APP: Final[dict[str, Schema]] = {name: _CREATE[name] for name in ("image", "cores", "ram")}


def _reply(schema: Schema, media: str = "application/json") -> Schema:
    return {"description": "done", "content": {media: {"schema": schema}}}


_TEXT: Final[Schema] = _reply({"type": "string"}, "text/plain")

_XML: Final[Schema] = {"description": "done", "content": {"text/xml;charset=UTF-8": {}}}
_EMPTY: Final[Schema] = {"description": "done, or there was nothing to do"}
_JSON_OR_TEXT: Final[Schema] = {
    "description": "the session, its log or its events",
    "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Session"}},
        "text/plain": {"schema": {"type": "string"}},
    },
}
# A path that no route takes is answered with a page, and one that has a slash in a name is too.
_REFUSED: Final[Schema] = {
    "description": "refused",
    "content": {
        "text/plain": {"schema": {"type": "string"}},
        "text/html;charset=utf-8": {"schema": {"type": "string"}},
    },
}
_JAVA_ERROR: Final[Schema] = {**_TEXT, "description": "what was asked for cannot be made, and why"}


def _query(**names: Schema) -> list[Schema]:
    return [{"name": name, "in": "query", "schema": schema} for name, schema in names.items()]


def _name(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(
    summary: str,
    reply: Schema,
    *parameters: Schema,
    form: dict[str, Schema] | None = None,
    required: tuple[str, ...] = (),
    **others: Schema,
) -> Schema:
    """Describe one method of a path; *others* are replies by status, as ``s404``."""
    replies: Schema = {"200": reply, "400": _REFUSED, "401": _TEXT, "403": _TEXT, "404": _REFUSED}
    replies |= {status.removeprefix("s"): each for status, each in others.items()}
    operation: Schema = {
        "summary": summary,
        "parameters": list(parameters),
        "responses": replies,
    }
    if form is not None:
        schema = {"type": "object", "properties": form, "required": list(required)}
        content = {"application/x-www-form-urlencoded": {"schema": schema}}
        operation["requestBody"] = {"required": bool(required), "content": content}
    return operation


def _paths() -> dict[str, Schema]:
    views: Schema = {"enum": ["all", "stats", "interactive"]}
    text: Schema = {"type": "string"}
    session, app = _name("session"), _name("app")
    listed = _query(type={"enum": [*Kind]}, status={"enum": [*Status]}, view=views)
    described = _query(view={"enum": ["logs", "events"]})
    required = ("name", "image")
    return {
        "/v1/session": {
            "get": _operation("List sessions", _reply(_SESSIONS), *listed),
            "post": _operation(
                "Launch a session", _TEXT, form=_CREATE, required=required, s500=_JAVA_ERROR
            ),
        },
        "/v1/session/{session}": {
            "parameters": [session],
            "get": _operation("Tell of a session", _JSON_OR_TEXT, *described),
            "post": _operation("Renew a session", _EMPTY, form={"action": {"enum": ["renew"]}}),
            "delete": _operation("End a session", _EMPTY),
        },
        "/v1/session/{session}/app": {
            "parameters": [session],
            "get": _operation("List applications of desktops", _reply(_SESSIONS), *listed),
            "post": _operation(
                "Start an application", _TEXT, form=_APP, required=("image",), s500=_JAVA_ERROR
            ),
        },
        "/v1/session/{session}/app/{app}": {
            "parameters": [session, app],
            "get": _operation(
                "Tell of an application", _reply({"$ref": "#/components/schemas/Session"})
            ),
            "delete": _operation("End an application", _EMPTY),
        },
        "/v1/image": {"get": _operation("List images", _reply(_IMAGES), *_query(type=text))},
        "/v1/context": {
            "get": _operation("Tell what may be asked for", _reply({"type": "object"}))
        },
        "/v1/repository": {
            "get": _operation(
                "List registries", _reply({"type": "array", "items": {"type": "string"}})
            )
        },
        "/availability": {"get": _operation("Read the availability", _XML)},
        "/capabilities": {"get": _operation("Read the capabilities", _XML)},
    }


def describe(base: str) -> Schema:
    """Return the OpenAPI document of the platform at the URL *base*."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Skaha sessions, as kaleden.local serves them", "version": "1"},
        "servers": [{"url": base}],
        "security": [{"bearer": []}],
        "components": {
            "schemas": {"Session": _SESSION},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "paths": _paths(),
    }
