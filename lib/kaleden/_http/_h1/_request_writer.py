"""The bytes of requests, of which all but the target is the same again and again."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from kaleden._errors import InvalidRequest
from kaleden._http._h1._pool import Origin
from kaleden._version import __version__
from kaleden._wire import FORM_TYPE, Request

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# What would end a line, or the target in it.
_BREAKS: Final = re.compile("[^!-~]")
_LINE_BREAKS: Final = re.compile(r"[\x00\r\n]")


def origin_of(url: str) -> Origin:
    """Tell where the connections for *url* lead to."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme])


@final
class RequestWriter:
    """Writes requests to one server.

    Args:
        root: the server's URL without version.
        base: the URL that versioned resources are under.
    """

    def __init__(self, root: str, base: str) -> None:
        self._root = urlsplit(root)
        self._base = urlsplit(base)
        self._agent = f"kaleden/{__version__}"
        self._token: str | None = None
        self._templates: dict[tuple[str, str, bool], tuple[str, str]] = {}

    def write(self, request: Request, token: str | None) -> bytes:
        """Write a request, body included.

        Raises:
            InvalidRequest: the target or a header would break out of its line.
        """
        if token != self._token:
            self._templates.clear()
            self._token = token
        shape = (request.method, request.accept, request.versioned)
        before, after = self._templates.get(shape) or self._template(shape)
        if _BREAKS.search(request.target):
            raise InvalidRequest("the target of a request is to be quoted")

        more = _more(request) if request.form or request.headers else ""
        return f"{before}{request.target}{after}{more}\r\n".encode("latin-1") + request.form

    def _template(self, shape: tuple[str, str, bool]) -> tuple[str, str]:
        method, accept, versioned = shape
        url = self._base if versioned else self._root
        lines = {
            "Host": _host(url),
            "Accept": accept,
            # Nothing compressed: a small reply gains nothing, and no reply can be larger than it
            # seems.
            "Accept-Encoding": "identity",
            "User-Agent": self._agent,
        }
        if self._token is not None:
            lines["Authorization"] = f"Bearer {self._token}"
        template = f"{method} {url.path}/", f" HTTP/1.1\r\n{_lines(lines.items())}"
        self._templates[shape] = template
        return template


def _more(request: Request) -> str:
    lines = list(request.headers)
    if any(_LINE_BREAKS.search(part) for line in lines for part in line):
        raise InvalidRequest("a header must not have a line break in it")

    if request.form:
        # The server reads parameters from a body of this type only.
        lines += [("Content-Type", FORM_TYPE), ("Content-Length", str(len(request.form)))]
    return _lines(lines)


def _lines(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


def _host(url: SplitResult) -> str:
    """Write the Host header: with the port, unless it is the usual one (RFC 9110 §7.2)."""
    return url.netloc.removesuffix(f":{_DEFAULT_PORTS[url.scheme]}")
