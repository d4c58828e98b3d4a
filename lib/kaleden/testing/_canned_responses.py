"""Canned responses of a faulty server."""

from __future__ import annotations

from kaleden._wire import Response
from kaleden.testing._faults import Fault


def make_busy_response(fault: Fault) -> Response:
    """Make a response that asks the client to wait before the next request."""
    headers = {"content-type": "text/plain", "retry-after": f"{fault.seconds:g}"}
    return Response(fault.status, headers, b"temporarily unavailable\n")


def make_error_response() -> Response:
    """Make the response of a server that has a bug."""
    text = b"unexpected exception: java.lang.IllegalStateException: a fault of the plan"
    return Response(500, {"content-type": "text/plain"}, text)


def make_garbage_response() -> Response:
    """Make a success response with meaningless bytes."""
    return Response(200, {"content-type": "application/octet-stream"}, b"\x00\xff{[\x80 \xfe")


def make_html_response() -> Response:
    """Make a success response with a web page, like that of a login page before the server."""
    text = b"<!doctype html><title>Sign in</title><h1>Sign in</h1>"
    return Response(200, {"content-type": "text/html"}, text)
