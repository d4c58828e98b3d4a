"""A request of httpx, as the bytes of HTTP/1.1: what would be read as something else is refused."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import httpx

from kaleden._http._h1._pool import Origin

# RFC 9110 §5.6.2 and §5.5: a token, and the value of a header without what would end its line.
_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[^\x00\r\n]*")
_TARGET: Final = re.compile(rb"[\x21-\x7e]+")

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def origin_of(url: httpx.URL) -> Origin:
    """Tell where a request goes to.

    Raises:
        httpx.UnsupportedProtocol: it is neither http nor https.
    """
    if url.scheme not in _DEFAULT_PORTS:
        what = f"protocol {url.scheme!r}" if url.scheme else "URL without a protocol"
        raise httpx.UnsupportedProtocol(f"cannot send to a {what}: http:// or https:// is needed")

    return Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _DEFAULT_PORTS[url.scheme])


def write_head(request: httpx.Request) -> bytes:
    """Write the request line and the headers.

    Raises:
        httpx.LocalProtocolError: they would not be read as what they are.
    """
    method = request.method.encode("ascii", "replace")
    target = cast("bytes", request.extensions.get("target", request.url.raw_path))
    if not _TOKEN.fullmatch(method) or method == b"CONNECT":
        raise httpx.LocalProtocolError(f"{request.method!r} is no method that can be sent")

    if not _TARGET.fullmatch(target):
        raise httpx.LocalProtocolError(f"{target!r} is no target of a request")

    lines = [b"%b %b HTTP/1.1" % (method, target)]
    for name, value in request.headers.raw:
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            # Not shown: it may be a secret.
            raise httpx.LocalProtocolError(f"header {name!r} has what would end its line")
        lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))


async def write_body(request: httpx.Request) -> AsyncGenerator[bytes]:
    """Write the body in pieces, as the headers announce it (RFC 9112 §6).

    Raises:
        httpx.LocalProtocolError: it is not what the headers announce.
    """
    if not isinstance(request.stream, httpx.AsyncByteStream):
        raise httpx.LocalProtocolError("the body can only be read by blocking: use an async one")

    length, chunked = _announced(request.headers)
    sent = 0
    async with _iterated(request.stream) as pieces:
        async for piece in pieces:
            if not piece:
                continue
            sent += len(piece)
            if not chunked and sent > length:
                message = f"the body is longer than the {length} bytes announced"
                raise httpx.LocalProtocolError(message)
            yield b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece

    if chunked:
        yield b"0\r\n\r\n"
    elif sent < length:
        raise httpx.LocalProtocolError(f"the body has {sent} bytes of {length} announced")


@asynccontextmanager
async def _iterated(stream: httpx.AsyncByteStream) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Iterate a stream and end that at once: trio warns of async generators that are left."""
    pieces = aiter(stream)
    try:
        yield pieces
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


def _announced(headers: httpx.Headers) -> tuple[int, bool]:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None and (length is not None or coding.lower() != "chunked"):
        raise httpx.LocalProtocolError("a body has a Content-Length, or comes in chunks")

    if length is not None and not (length.isascii() and length.isdigit()):
        raise httpx.LocalProtocolError(f"Content-Length {length!r} is no number")

    return int(length or 0), coding is not None
