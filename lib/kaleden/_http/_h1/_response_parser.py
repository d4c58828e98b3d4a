"""One HTTP/1.1 reply, read strictly as it comes in.

llhttp, the parser of Node.js, reads the framing and refuses what RFC 9112 does not allow. What is
added here: bounds on everything that a server could make endless, and that nothing may follow a
reply which no request asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, cast, final

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from kaleden._errors import FailureKind
from kaleden._http._transport import TransportError, too_long_for

MAX_HEAD: Final = 64 * 2**10
"""Bytes of a head, at most."""

MAX_HEADERS: Final = 256
"""Lines of a head, at most."""

MAX_INTERIM: Final = 16
"""Interim replies (1xx) before the final one, at most."""

# A chunk of one byte has five bytes of framing; beyond that it is trailers and chunk extensions.
_FRAMING_PER_BYTE: Final = 8

_SURPLUS: Final = "more came than it"

_VERSIONS: Final = frozenset({"1.0", "1.1"})


@final
class Headers(Mapping[str, str]):
    """The headers of a reply, by name in whatever case; decoded when the first is asked for."""

    __slots__ = ("_decoded", "_raw")

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._raw = raw
        self._decoded: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            decoded: dict[str, str] = {}
            for name, value in self._raw:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                # RFC 9110 §5.3: lines of one name are one list.
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
        # Without the values: a cookie is as good as a password.
        return f"<Headers {', '.join(self)}>"


@final
class ResponseParser:
    """What is known of a reply so far; give it all bytes that come with `feed`.

    Args:
        max_body: bytes of the body, at most.
        bodiless: whether it is a reply to HEAD, which has no body whatever its headers say.

    Attributes:
        headers: the lines of the head, names as they came.
        started: whether anything of it has come.
        head_complete: whether the head has come.
        complete: whether all of it has come.
        status: the status, once the head has come.
        version: the version of HTTP, likewise.
        keep: whether the connection may be used again.
    """

    __slots__ = (
        "_barren",
        "_bodiless",
        "_chunked",
        "_fed",
        "_interim",
        "_max_body",
        "_parser",
        "_pieces",
        "_problem",
        "_size",
        "complete",
        "head_complete",
        "headers",
        "keep",
        "started",
        "status",
        "version",
    )

    def __init__(self, max_body: int, *, bodiless: bool = False) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.started = False
        self.head_complete = False
        self.complete = False
        self.keep = False
        self.status = 0
        self.version = ""
        self._max_body = max_body
        self._barren = 0
        self._bodiless = bodiless
        self._chunked = False
        self._fed = 0
        self._interim = 0
        self._size = 0
        self._pieces: list[bytes] = []
        self._problem: str | None = None
        self._parser: HttpResponseParser | None = HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            TransportError: they are no part of a reply that can be read.
        """
        if self._parser is None:
            raise _unreadable(_SURPLUS)

        self.started = True
        self._fed += len(data)
        self._barren += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise _unreadable(self._problem or str(error)) from error

        if self._problem is not None:
            raise _unreadable(self._problem)

        if self._fed > MAX_HEAD:
            self._check_framing()
        if self.complete:
            # It holds methods of this, so that only the garbage collector would free them both.
            self._parser = None

    def end(self) -> None:
        """Hear that the connection ended.

        Raises:
            TransportError: the reply is not complete by that.
        """
        if not self.started:
            raise lost("the server disconnected without sending a reply")

        if not self.head_complete:
            raise lost("the server disconnected in the middle of a reply's head")

        if self._delimited():
            raise lost("the server disconnected in the middle of a reply's body")

        self.complete = True

    def take_body(self) -> bytes:
        """Return what has come of the body since the last call."""
        pieces = self._pieces
        self._pieces = []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _delimited(self) -> bool:
        """Tell whether the body has an end of its own (RFC 9112 §6.3)."""
        names = {name.lower() for name, _ in self.headers}
        return not names.isdisjoint((b"content-length", b"transfer-encoding"))

    def _check_framing(self) -> None:
        if not self.head_complete or _length(self.headers) > MAX_HEAD:
            raise _unreadable(f"its head is longer than {MAX_HEAD} bytes")

        # The parser keeps a trailer until its line ends, whatever its length.
        framing = self._fed - self._size
        if self._barren > 2 * MAX_HEAD or framing > 2 * MAX_HEAD + _FRAMING_PER_BYTE * self._size:
            raise _unreadable("it has more framing than content")

    # What follows is called by the parser, whose names these are. An exception raised here would
    # come out wrapped, so what is wrong is only noted.

    def on_message_begin(self) -> None:
        """Begin: the reply, or the one after an interim one."""
        if self.complete:
            self._problem = _SURPLUS

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a line of the head, or of the trailers, which nothing here has a use for."""
        if not self.head_complete:
            # RFC 9110 §5.5: white space is no part of a value; the parser leaves what follows one.
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Look at the head."""
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
        """Make sure that chunked is all that was done to the body."""
        if not self._chunked:
            self._chunked = True
            codings = [
                value for name, value in self.headers if name.lower() == b"transfer-encoding"
            ]
            if [coding.lower() for coding in codings] != [b"chunked"]:
                self._problem = "its transfer coding is none that was asked for"

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        if self.complete:
            self._problem = _SURPLUS
            return

        self._barren = 0
        self._size += len(piece)
        if self._size > self._max_body:
            self._problem = f"it is {too_long_for(self._max_body)}"
        else:
            self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """End: the reply, or an interim one."""
        if self.head_complete:
            self.complete = True
            return

        self.headers.clear()
        self._interim += 1
        if self._interim > MAX_INTERIM:
            self._problem = "interim replies go on and on"


def lost(message: str, *, sent: bool = True) -> TransportError:
    """Say that the connection ended too soon."""
    return TransportError(FailureKind.CONNECTION_LOST, message, sent=sent)


def _unreadable(problem: str) -> TransportError:
    return TransportError(FailureKind.PROTOCOL, f"the reply cannot be used: {problem}", sent=True)


def _length(headers: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)
