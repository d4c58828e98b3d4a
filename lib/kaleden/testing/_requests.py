"""Kinds of request, by method and target."""

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
"""The kinds of request: `Fault` selects requests by them, and counters count requests by them."""


def classify_request(request: Request) -> str:
    """Return the kind of a request, one of `REQUEST_KINDS`."""
    return classify_target(request.method, request.target)


def classify_target(method: str, target: str) -> str:
    """Return the kind of a request; *target* is relative to the versioned base URL."""
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
