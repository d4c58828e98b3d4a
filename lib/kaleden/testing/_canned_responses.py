"""Canned responses of a faulty server."""

from __future__ import annotations

from kaleden._wire import Response
from kaleden.testing._faults import Fault


def _make_text_response(status: int, text: str, **headers: str) -> Response:
    return Response(status, {"content-type": "text/plain", **headers}, text.encode())


def make_busy_response(fault: Fault) -> Response:
    """Make a response that asks the client to wait before the next request."""
    headers = {"retry-after": f"{fault.seconds:g}"}
    return _make_text_response(fault.status, "temporarily unavailable\n", **headers)


def make_error_response() -> Response:
    """Make the response of a server that has a bug."""
    return _make_text_response(
        500, "unexpected exception: java.lang.IllegalStateException: a fault of the plan"
    )


def make_garbage_response() -> Response:
    """Make a success response with meaningless bytes."""
    return Response(200, {"content-type": "application/octet-stream"}, b"\x00\xff{[\x80 \xfe")


def make_html_response() -> Response:
    """Make a success response with a web page, like that of a login page before the server."""
    text = b"<!doctype html><title>Sign in</title><h1>Sign in</h1>"
    return Response(200, {"content-type": "text/html"}, text)
