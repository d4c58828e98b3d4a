"""Requests as bytes; all but the target comes from a template."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final
from urllib.parse import urlsplit

from kaleden._errors import InvalidRequest
from kaleden._http._h1._pool import DEFAULT_PORTS, Origin
from kaleden._http._h1._proxy import Proxy
from kaleden._version import __version__
from kaleden._wire import FORM_TYPE, Request

# Characters that would end a line, or the target in it.
_BREAKS: Final = re.compile("[^!-~]")
_LINE_BREAKS: Final = re.compile(r"[\x00\r\n]")


def origin_of(url: str) -> Origin:
    """Return the origin of *url*."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme])


@final
class RequestWriter:
    """Writes requests to one server, or to a *proxy* that forwards them."""

    def __init__(self, root: str, base: str, proxy: Proxy | None = None) -> None:
        self._root = urlsplit(root)
        self._base = urlsplit(base)
        self._proxy = proxy
        self._token: str | None = None
        self._templates: dict[tuple[str, str, bool], tuple[str, str]] = {}

    def write(self, request: Request, token: str | None) -> bytes:
        """Return a request, with its body.

        Raises:
            InvalidRequest: the target or a header would end its line early.
        """
        if token != self._token:
            self._templates.clear()
            self._token = token
        shape = (request.method, request.accept, request.versioned)
        before, after = self._templates.get(shape) or self._template(shape)
        if _BREAKS.search(request.target):
            raise InvalidRequest("the target of a request must be percent-encoded")

        extra = _format_extra(request) if request.form or request.headers else ""
        return f"{before}{request.target}{after}{extra}\r\n".encode("latin-1") + request.form

    def _template(self, shape: tuple[str, str, bool]) -> tuple[str, str]:
        method, accept, versioned = shape
        url = self._base if versioned else self._root
        lines = {
            # Without a default port (RFC 9110 §7.2).
            "Host": url.netloc.removesuffix(f":{DEFAULT_PORTS[url.scheme]}"),
            "Accept": accept,
            # No compression: a small response gains nothing, and no response can be larger than
            # the bytes that were received.
            "Accept-Encoding": "identity",
            "User-Agent": f"kaleden/{__version__}",
        }
        if self._token is not None:
            lines["Authorization"] = f"Bearer {self._token}"
        path, headers = f"{url.path}/", _format_headers(lines.items())
        if self._proxy is not None:
            # The absolute form (RFC 9112 §3.2.2).
            path, headers = f"{url.scheme}://{url.netloc}{path}", headers + self._proxy.headers
        template = f"{method} {path}", f" HTTP/1.1\r\n{headers}"
        self._templates[shape] = template
        return template


def _format_extra(request: Request) -> str:
    lines = list(request.headers)
    if any(_LINE_BREAKS.search(part) for line in lines for part in line):
        raise InvalidRequest("a header must not have a line break in it")

    if request.form:
        # The server reads parameters from a body of this type only.
        lines += [("Content-Type", FORM_TYPE), ("Content-Length", str(len(request.form)))]
    return _format_headers(lines)


def _format_headers(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers)
