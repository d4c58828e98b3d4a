"""Response parsers: one function per response of the Skaha API.

They parse responses that `classify` accepts as successes. For any body, a parser returns a model or
raises `MalformedResponse`, and nothing else. Where the server sends text, only an HTML page is
malformed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain, islice
from typing import Any, Generic, TypeVar, cast, final
from xml.etree import ElementTree as ET

from attrs import field, frozen

from kaleden._errors import InvalidRequest
from kaleden._wire import _decoders
from kaleden._wire._models import (
    Availability,
    Event,
    Image,
    Listing,
    PlatformStats,
    ResourceOptions,
    SessionInfo,
)
from kaleden._wire._primitives import (
    JsonArray,
    JsonObject,
    decode_excerpt,
    decode_text,
    extract_page_text,
    format_one_line,
    is_html,
    is_object,
    iterate_array,
    parse_json,
    parse_text,
    parse_time,
)
from kaleden._wire._validation import check_id, format_value

_ROW_START = re.compile(r"(?:Normal|Warning|<none>)\s")
_TIME = r"(<none>|\d{4}-\d\d-\d\dT\S+)"
_ROW_END = re.compile(rf"\s{_TIME}\s+{_TIME}$")


T = TypeVar("T")

# Elements that are parsed in about a millisecond.
_SLICE = 100


class MalformedResponse(ValueError):  # Named without the suffix "Error", like kaleden's errors.
    """A response does not have the format that the Skaha API specifies."""


@frozen
class Response:
    """One HTTP response.

    Attributes:
        status: the status code.
        headers: the headers, with keys in lower case.
        body: the whole body, or its last bytes.
        omitted: the number of bytes before those.
    """

    status: int
    headers: Mapping[str, str] = field(factory=dict[str, str])
    # A body may contain secrets, so the repr gives only its size.
    body: bytes = field(default=b"", repr=lambda body: f"<{len(body)} bytes>")
    omitted: int = field(default=0, repr=False)

    @property
    def content_type(self) -> str:
        """The content type, or ``""``."""
        return self.headers.get("content-type", "")


@final
class IncrementalParser(Generic[T]):
    """A parser that can run in steps, so that a long response does not block the event loop.

    Calling it parses the whole response at once; `steps` parses one slice at a time.

    Args:
        steps: a generator function that yields after each slice and returns the result.
    """

    def __init__(self, steps: Callable[[Response], Generator[None, None, T]]) -> None:
        self.steps = steps
        functools.update_wrapper(self, steps)

    def __call__(self, response: Response) -> T:
        reading = self.steps(response)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                return cast("T", end.value)


def parse_info(response: Response) -> SessionInfo:
    """Read one session."""
    return _decoders.read_session_info(_parse_json_object(response, "a session"), response.body)


def parse_raw_info(response: Response) -> JsonObject:
    """Read one session as the server's JSON object."""
    return _parse_json_object(response, "a session")


_CONTINUATION = bytes(range(0x80, 0xC0))
"""The bytes of UTF-8 that begin no character."""


@IncrementalParser
def parse_list(response: Response) -> Generator[None, None, Listing]:
    """Read a list of sessions. Elements that are not objects are returned separately."""
    sessions: list[SessionInfo] = []
    malformed: list[Any] = []
    for some in _iterate_slices(response, "sessions"):
        sessions += [_decoders.read_session_info(each) for each in some if is_object(each)]
        malformed += [each for each in some if not is_object(each)]
        yield
    return Listing(tuple(sessions), tuple(malformed))


@IncrementalParser
def parse_raw_list(response: Response) -> Generator[None, None, JsonArray]:
    """Read a list of sessions as the server's JSON values, malformed elements included."""
    elements: JsonArray = []
    for some in _iterate_slices(response, "sessions"):
        elements += some
        yield
    return elements


def parse_logs(response: Response) -> str:
    """Return a session's output: ``""`` if there is none yet, or the session does not exist."""
    if response.omitted:
        # The first character may be incomplete.
        start = len(response.body[:3]) - len(response.body[:3].lstrip(_CONTINUATION))
        body = response.body[start:]
        response = Response(response.status, response.headers, body, response.omitted)
    return _decode_body(response, "a session's output")


def parse_events(response: Response) -> tuple[Event, ...]:
    """Read the table of events. A message may contain runs of spaces and line breaks."""
    return tuple(
        _parse_event(row) for row in _split_rows(_decode_body(response, "a table of events"))
    )


def parse_create(response: Response) -> str:
    """Return the id of the created session.

    Raises:
        MalformedResponse: the response is not an id. The session may exist nevertheless.
    """
    created = _decode_body(response, "a session id").strip()
    try:
        return check_id(created)
    except InvalidRequest:
        raise _make_error(response, "a session id") from None


def parse_done(response: Response) -> bool:
    """Return True for a successful renew or delete; the response has no other information."""
    _decode_body(response, "an empty body")
    return True


def parse_stats(response: Response) -> PlatformStats:
    """Read the platform's resources."""
    return _decoders.read_stats(_parse_json_object(response, "platform statistics"))


def parse_images(response: Response) -> tuple[Image, ...]:
    """Read the images. Elements without an id are left out."""
    objects = filter(is_object, _parse_json_array(response, "images"))
    return tuple(_decoders.read_image(each) for each in objects if parse_text(each.get("id")))


def parse_context(response: Response) -> ResourceOptions:
    """Read the resources that sessions may request."""
    return _decoders.read_context(_parse_json_object(response, "the context"))


def parse_repositories(response: Response) -> tuple[str, ...]:
    """Read the registry hosts. Elements that are not strings are left out."""
    hosts = map(parse_text, _parse_json_array(response, "registry hosts"))
    return tuple(host for host in hosts if host)


def parse_availability(response: Response) -> Availability:
    """Read the service's availability."""
    try:
        root = _parse_document(decode_text(response.body))
    except ValueError as problem:
        raise _make_error(response, "VOSI availability XML", problem) from None
    # Servers use different versions of the namespace.
    available = root.findtext("{*}available", "").strip()
    if available not in {"true", "false"}:
        reason = "it does not state whether the service is available"
        raise _make_error(response, "VOSI availability XML", reason)
    notes = tuple((note.text or "").strip() for note in root.iterfind("{*}note"))
    return Availability(available == "true", notes)


def _parse_document(document: str) -> ET.Element:
    # Entities make untrusted XML dangerous (entity expansion, external entities), and only a
    # DOCTYPE can declare them.
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("it has a DOCTYPE, which is refused")
    try:
        root = ET.fromstring(document)  # noqa: S314 # no DOCTYPE, hence no entities
    except ET.ParseError as error:
        raise ValueError(f"not XML: {error}") from None
    if (name := root.tag.rpartition("}")[2]) != "availability":
        raise ValueError(f"its root is <{name}>")
    return root


def _iterate_slices(response: Response, contents: str) -> Iterator[JsonArray]:
    """Parse a JSON array, and yield a slice of its elements at a time."""
    elements = iterate_array(response.body)
    try:
        while some := list(islice(elements, _SLICE)):
            yield some
    except (ValueError, RecursionError):
        raise _make_error(response, f"{contents} as a JSON array") from None


def _parse_json_object(response: Response, contents: str) -> JsonObject:
    try:
        value = parse_json(response.body)
    except (ValueError, RecursionError):
        value = None
    if not is_object(value):
        raise _make_error(response, f"{contents} as a JSON object")
    return value


def _parse_json_array(response: Response, contents: str) -> JsonArray:
    return list(chain.from_iterable(_iterate_slices(response, contents)))


def _decode_body(response: Response, expected: str) -> str:
    # Only the content type indicates a page here: a session's output may begin with "<html>".
    if "html" in response.content_type.lower():
        raise _make_error(response, expected)
    return decode_text(response.body)


def _make_error(response: Response, expected: str, reason: object = "") -> MalformedResponse:
    suffix = f" ({reason})" if reason else ""
    return MalformedResponse(
        f"expected {expected}, but the response is {_describe_body(response)}{suffix}"
    )


def _describe_body(response: Response) -> str:
    """Describe a body for an error message."""
    body = decode_excerpt(response.body)
    if not body.strip():
        return "empty"
    if is_html(response.content_type, body):
        return (
            f"an HTML page that says {format_value(extract_page_text(body), 80)}: is the URL right?"
        )
    kind = format_one_line(response.content_type, 60) or "without content type"
    return f"{kind}, {format_value(body.strip(), 80)}"


def _split_rows(table: str) -> Iterator[str]:
    """Yield the text of each event, line breaks included, without the header."""
    pending: list[str] = []
    for line in table.split("\n"):
        if pending and (_ROW_START.match(line) or _ROW_END.search(pending[-1])):
            yield "\n".join(pending)
            pending = []
        if pending or not _is_filler(line):
            pending.append(line.rstrip())
    if pending:
        yield "\n".join(pending)


def _is_filler(line: str) -> bool:
    """Whether a line has no content: the header, the marker for "no events", or an empty line."""
    words = line.split()
    return words in ([], ["<none>"]) or words[:2] == ["TYPE", "REASON"]


def _parse_event(row: str) -> Event:
    """Split a row from both ends, as the message between them may contain column separators."""
    times = _ROW_END.search(row)
    first, last = (parse_time(times[1]), parse_time(times[2])) if times else (None, None)
    words = (row[: times.start()] if times else row).split(None, 2)
    kind, reason, message = [*words, "", "", ""][:3]
    return Event(parse_text(kind), parse_text(reason), parse_text(message.strip()), first, last)
