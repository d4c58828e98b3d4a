"""What a server says when something is wrong with it."""

from __future__ import annotations

from kaleden._wire import Response
from kaleden.testing._faults import Fault


def _text(status: int, text: str, **headers: str) -> Response:
    return Response(status, {"content-type": "text/plain", **headers}, text.encode())


def busy(fault: Fault) -> Response:
    """Ask to be left alone for a while."""
    headers = {"retry-after": f"{fault.seconds:g}"}
    return _text(fault.status, "temporarily unavailable\n", **headers)


def error() -> Response:
    """Fail, as a program does that has a fault."""
    return _text(500, "unexpected exception: java.lang.IllegalStateException: a fault of the plan")


def garbage() -> Response:
    """Say nothing that means anything."""
    return Response(200, {"content-type": "application/octet-stream"}, b"\x00\xff{[\x80 \xfe")


def page() -> Response:
    """Show a page, as something does that stands before the server."""
    text = b"<!doctype html><title>Sign in</title><h1>Sign in</h1>"
    return Response(200, {"content-type": "text/html"}, text)
