"""A strict parser for one HTTP/1.1 response, fed piece by piece.

llhttp, the parser of Node.js, reads the framing and refuses what RFC 9112 does not allow. This
module adds bounds on everything that a server could make endless, and refuses bytes after the
response, which no request asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, cast, final

from attrs import define, field
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from kaleden._errors import FailureKind
from kaleden._http._transport import (
    MAX_OMITTED,
    TransportError,
    format_endless,
    format_too_long,
)

MAX_HEAD: Final = 64 * 2**10
"""Bytes of a head, at most."""

MAX_HEADERS: Final = 256
"""Lines of a head, at most."""

MAX_INTERIM: Final = 16
"""Interim responses (1xx) before the final one, at most."""

# A chunk of one byte has five bytes of framing; more than that are trailers or chunk extensions.
_FRAMING_PER_BYTE: Final = 8

_EXCESS: Final = "more came than it"

_VERSIONS: Final = frozenset({"1.0", "1.1"})


@final
class Headers(Mapping[str, str]):
    """The headers of a response, by case-insensitive name; decoded at the first access."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            decoded: dict[str, str] = {}
            for name, value in self._raw:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                # RFC 9110 §5.3: several lines of one name form one list.
                decoded[key] = f"{decoded[key]}, {text}" if key in decoded else text
            self._decoded = decoded
        return self._decoded

    def __getitem__(self, name: str) -> str:
        return self._all()[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        # The values may be secret: a cookie is as good as a password.
        return f"<Headers {', '.join(self)}>"


@final
@define(eq=False, repr=False)
class ResponseParser:
    """Parses one response; pass all received bytes to `feed`.

    Args:
        max_body: bytes of the body, at most.
        keep_last: bytes of the body that are kept, its last ones, if the status is one of success;
            None for all of it.
        bodiless: whether the response has no body, even if its headers announce one, as for HEAD.

    Attributes:
        headers: the lines of the head, names as received.
        started: whether any byte was received.
        head_complete: whether the head was received.
        complete: whether all of it was received.
        status: the status, once the head is complete.
        version: the version of HTTP, once the head is complete.
        keep: whether the connection may be used again.
        omitted: bytes of the body that were not kept.
    """

    _max_body: int
    _keep_last: int | None = field(default=None, kw_only=True, alias="keep_last")
    _bodiless: bool = field(default=False, kw_only=True, alias="bodiless")
    headers: list[tuple[bytes, bytes]] = field(init=False)
    started: bool = field(init=False, default=False)
    head_complete: bool = field(init=False, default=False)
    complete: bool = field(init=False, default=False)
    keep: bool = field(init=False, default=False)
    omitted: int = field(init=False, default=0)
    status: int = field(init=False, default=0)
    version: str = field(init=False, default="")
    _since_body: int = field(init=False, default=0)
    _chunked: bool = field(init=False, default=False)
    _fed: int = field(init=False, default=0)
    _interim: int = field(init=False, default=0)
    _size: int = field(init=False, default=0)
    _pieces: deque[bytes] = field(init=False)
    _problem: str | None = field(init=False, default=None)
    _parser: HttpResponseParser | None = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.headers = []
        self._pieces = deque()
        self._parser = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the connection.

        Raises:
            TransportError: they are not part of a valid response.
        """
        if self._parser is None:
            raise _malformed(_EXCESS)

        self.started = True
        self._fed += len(data)
        self._since_body += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise _malformed(self._problem or str(error)) from error

        if self._problem is not None:
            raise _malformed(self._problem)

        if self._fed > MAX_HEAD:
            self._check_framing()
        if self.complete:
            # The parser refers to this object: without this they wait for the garbage collector.
            self._parser = None

    def end(self) -> None:
        """Handle the end of the connection.

        Raises:
            TransportError: the response is not complete.
        """
        if not self.started:
            raise connection_lost("the server disconnected without sending a response")

        if not self.head_complete:
            raise connection_lost("the server disconnected in the middle of a response's head")

        if self._has_end():
            raise connection_lost("the server disconnected in the middle of a response's body")

        self.complete = True

    def take_body(self) -> bytes:
        """Return the part of the body that was received since the last call."""
        pieces = self._pieces
        self._pieces = deque()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _has_end(self) -> bool:
        """Return whether the headers delimit the body (RFC 9112 §6.3)."""
        names = {name.lower() for name, _ in self.headers}
        return not names.isdisjoint((b"content-length", b"transfer-encoding"))

    def _check_framing(self) -> None:
        head = sum(len(name) + len(value) + len(b": \r\n") for name, value in self.headers)
        if not self.head_complete or head > MAX_HEAD:
            raise _malformed(f"its head is longer than {MAX_HEAD} bytes")

        # The parser keeps a trailer until its line ends, whatever its length.
        framing = self._fed - self._size
        if (
            self._since_body > 2 * MAX_HEAD
            or framing > 2 * MAX_HEAD + _FRAMING_PER_BYTE * self._size
        ):
            raise _malformed("it has more framing than content")

    # The parser calls the following methods by these names. It would wrap an exception raised here,
    # so they only record a problem.

    def on_message_begin(self) -> None:
        """Begin a response: the first, or the next after an interim one."""
        if self.complete:
            self._problem = _EXCESS

    def on_header(self, name: bytes, value: bytes) -> None:
        """Store a line of the head; trailers are ignored."""
        if not self.head_complete:
            # RFC 9110 §5.5: white space is not part of a value; the parser leaves it at the end.
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check the head."""
        parser = cast("HttpResponseParser", self._parser)
        self.status = status = parser.get_status_code()
        self.version = parser.get_http_version()
        if self.version not in _VERSIONS:
            self._problem = f"it is HTTP/{self.version}"
        elif len(self.headers) > MAX_HEADERS:
            self._problem = f"it has more than {MAX_HEADERS} headers"
        elif status == 101:
            self._problem = "it changes to another protocol, which nothing asked for"
        elif status >= 200:
            self.head_complete = True
            self.keep = parser.should_keep_alive()
            self.complete = self._bodiless

    def on_chunk_header(self) -> None:
        """Check that the body has no transfer coding but chunked."""
        if not self._chunked:
            self._chunked = True
            codings = [
                value for name, value in self.headers if name.lower() == b"transfer-encoding"
            ]
            if [coding.lower() for coding in codings] != [b"chunked"]:
                self._problem = "it has a transfer coding that was not asked for"

    def on_body(self, piece: bytes) -> None:
        """Store a piece of the body."""
        if self.complete:
            self._problem = _EXCESS
            return

        self._since_body = 0
        self._size += len(piece)
        is_tail = self._keep_last is not None and 200 <= self.status < 300
        if is_tail and self._size > self._max_body * MAX_OMITTED:
            self._problem = f"it is {format_endless(self._max_body)}"
        elif self._size > self._max_body and not is_tail:
            self._problem = f"it is {format_too_long(self._max_body)}"
        else:
            self._pieces.append(piece)
            if is_tail:
                self._drop_head(self._size - (self._keep_last or 0))

    def _drop_head(self, omitted: int) -> None:
        """Drop the first bytes of a body that is too long."""
        excess = omitted - self.omitted
        if excess <= 0:
            return

        self.omitted = omitted
        while excess >= len(self._pieces[0]):
            excess -= len(self._pieces.popleft())
        self._pieces[0] = self._pieces[0][excess:]

    def on_message_complete(self) -> None:
        """End a response: the final one, or an interim one."""
        if self.head_complete:
            self.complete = True
            return

        self.headers.clear()
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._problem = f"it has more than {MAX_INTERIM} interim responses"


def connection_lost(message: str, *, sent: bool = True) -> TransportError:
    """Return the error for a connection that ended too early."""
    return TransportError(FailureKind.CONNECTION_LOST, message, sent=sent)


def _malformed(problem: str) -> TransportError:
    return TransportError(
        FailureKind.PROTOCOL, f"the response cannot be used: {problem}", sent=True
    )
