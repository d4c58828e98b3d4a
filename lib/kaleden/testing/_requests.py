"""What a request asks for, as tests speak of it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs

from kaleden._wire import Request

REQUEST_KINDS: Final = (
    "create",
    "destroy",
    "list",
    "info",
    "logs",
    "events",
    "renew",
    "stats",
    "other",
)
"""The kinds of request that tests tell apart."""


def request_kind(request: Request) -> str:
    """Name the kind of a request, one of `REQUEST_KINDS`."""
    return kind_of(request.method, request.target)


def kind_of(method: str, target: str) -> str:
    """Name the kind of a request to a target below a version."""
    path, _, query = target.partition("?")
    view = parse_qs(query).get("view", [""])[0]
    match method, path.split("/"):
        case "POST", ["session"]:
            return "create"
        case "POST", ["session", _]:
            return "renew"
        case "DELETE", ["session", _]:
            return "destroy"
        case "GET", ["session"]:
            return "stats" if view == "stats" else "list"
        case "GET", ["session", _]:
            return view if view in REQUEST_KINDS else "info"
        case _:
            return "other"
