"""Parsers: one function per reply of the Skaha API, for replies that `classify` lets pass.

A parser returns a model or raises `MalformedResponse`, whatever bytes it is given.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, TypeVar, cast, final
from xml.etree import ElementTree as ET

from attrs import field, frozen

from kaleden._errors import InvalidRequest
from kaleden._wire import _decoders
from kaleden._wire._models import (
    Availability,
    Capability,
    Event,
    Image,
    Interface,
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
    is_array,
    is_html,
    is_object,
    iterate_array,
    parse_json,
    parse_text,
    parse_time,
)
from kaleden._wire._validation import check_id, format_value


def _read_availability(document: str) -> Availability:
    """Read an availability document.

    Raises:
        ValueError: it is none.
    """
    root = _parse_document(document, "availability")
    said = next((_get_content(each) for each in _find_children(root, "available")), "")
    if said not in {"true", "false"}:
        raise ValueError("it does not say whether the service is available")
    notes = tuple(_get_content(each) for each in _find_children(root, "note"))
    return Availability(said == "true", notes)


def _read_capabilities(document: str) -> tuple[Capability, ...]:
    """Read a capabilities document.

    Raises:
        ValueError: it is none.
    """
    root = _parse_document(document, "capabilities")
    return tuple(
        Capability(each.get("standardID", ""), tuple(_read_interfaces(each)))
        for each in _find_children(root, "capability")
    )


def _read_interfaces(capability: ET.Element) -> Iterator[Interface]:
    for interface in _find_children(capability, "interface"):
        methods = _find_children(interface, "securityMethod")
        yield Interface(
            next((_get_content(url) for url in _find_children(interface, "accessURL")), ""),
            tuple(each.get("standardID", "") for each in methods if each.get("standardID")),
            interface.get("role"),
            interface.get("version"),
        )


def _parse_document(document: str, root_name: str) -> ET.Element:
    # Entities are what makes XML of strangers dangerous, and only a doctype can declare them.
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("it has a DOCTYPE, which is refused")
    try:
        root = ET.fromstring(document)  # noqa: S314 # no doctype, no entities
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if _get_local_name(root) != root_name:
        raise ValueError(f"its root is <{_get_local_name(root)}>")
    return root


def _find_children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Give the children of that name, in whatever namespace: servers differ in its version."""
    return (child for child in element if _get_local_name(child) == name)


def _get_local_name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _get_content(element: ET.Element) -> str:
    return (element.text or "").strip()


_ROW_START = re.compile(r"(?:Normal|Warning|<none>)\s")
_TIME = r"(<none>|\d{4}-\d\d-\d\dT\S+)"
_ROW_END = re.compile(rf"\s{_TIME}\s+{_TIME}$")


T = TypeVar("T")

# About a millisecond's worth.
_SLICE = 100


class MalformedResponse(ValueError):  # says what it is, as kaleden's errors do
    """A reply that is not what the Skaha API gives here; the message says what came."""


def _format_size(body: bytes) -> str:
    """Show how long a body is: it may hold secrets."""
    return f"<{len(body)} bytes>"


@frozen
class Response:
    """One HTTP reply.

    Attributes:
        status: the status code.
        headers: the headers, with keys in lower case.
        body: the whole body.
    """

    status: int
    headers: Mapping[str, str] = field(factory=dict[str, str])
    body: bytes = field(default=b"", repr=_format_size)

    @property
    def content_type(self) -> str:
        """The content type, or ``""``."""
        return self.headers.get("content-type", "")


@final
class IncrementalParser(Generic[T]):
    """A parser of what may be so long that it would hold up an event loop.

    Called, it reads all at once; `steps` reads a piece at a time.

    Args:
        steps: yields between two pieces, and returns what was read.
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
    """Read one session.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _decoders.read_session_info(_parse_json_object(response, "a session"), response.body)


def parse_raw_info(response: Response) -> JsonObject:
    """Read one session, as the server tells of it.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _parse_json_object(response, "a session")


@IncrementalParser
def parse_list(response: Response) -> Generator[None, None, Listing]:
    """Read sessions; what is no object in the list stands apart, and costs no other.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    sessions: list[SessionInfo] = []
    malformed: list[Any] = []
    for some in _iterate_slices(response, "sessions"):
        sessions += [_decoders.read_session_info(each) for each in some if is_object(each)]
        malformed += [each for each in some if not is_object(each)]
        yield
    return Listing(tuple(sessions), tuple(malformed))


@IncrementalParser
def parse_raw_list(response: Response) -> Generator[None, None, JsonArray]:
    """Read sessions, and what else stands in the list, as the server tells of them.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    elements: JsonArray = []
    for some in _iterate_slices(response, "sessions"):
        elements += some
        yield
    return elements


def parse_logs(response: Response) -> str:
    """Return a session's output; ``""`` also for sessions that have none yet, or are not there.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    return _decode_body(response, "a session's output")


def parse_events(response: Response) -> tuple[Event, ...]:
    """Read the table of events; a message may have runs of spaces and line ends in it.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    return tuple(
        _parse_event(row) for row in _split_rows(_decode_body(response, "a table of events"))
    )


def parse_create(response: Response) -> str:
    """Return the id of the session that was created.

    Raises:
        UnreadableReply: the reply is not an id. The session may be there all the same.
    """
    created = _decode_body(response, "a session id").strip()
    try:
        return check_id(created)
    except InvalidRequest:
        raise _make_error(response, "a session id") from None


def parse_done(response: Response) -> bool:
    """Return True: a renew or a delete was answered, which is all that the server says.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    _decode_body(response, "an empty body")
    return True


def parse_stats(response: Response) -> PlatformStats:
    """Read the platform's resources.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _decoders.read_stats(_parse_json_object(response, "platform statistics"))


def parse_images(response: Response) -> tuple[Image, ...]:
    """Read the images; an element without an id is left out.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    objects = (each for each in _parse_json_array(response, "images") if is_object(each))
    return tuple(_decoders.read_image(each) for each in objects if parse_text(each.get("id")))


def parse_context(response: Response) -> ResourceOptions:
    """Read what sessions may ask for.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _decoders.read_context(_parse_json_object(response, "the context"))


def parse_repositories(response: Response) -> tuple[str, ...]:
    """Read the registry hosts; an element that is no text is left out.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    return tuple(each for each in _parse_json_array(response, "registry hosts") if parse_text(each))


def parse_availability(response: Response) -> Availability:
    """Read whether the service is there.

    Raises:
        UnreadableReply: the reply is not a VOSI availability document.
    """
    try:
        return _read_availability(decode_text(response.body))
    except ValueError as problem:
        raise _make_error(response, "VOSI availability XML", problem) from None


def parse_capabilities(response: Response) -> tuple[Capability, ...]:
    """Read what the service can do.

    Raises:
        UnreadableReply: the reply is not a VOSI capabilities document.
    """
    try:
        return _read_capabilities(decode_text(response.body))
    except ValueError as problem:
        raise _make_error(response, "VOSI capabilities XML", problem) from None


def _parse_body(response: Response, due: str) -> Any:
    try:
        return parse_json(response.body)
    except (ValueError, RecursionError):
        raise _make_error(response, due) from None


def _iterate_slices(response: Response, what: str) -> Iterator[JsonArray]:
    """Read a JSON array, some elements at a time."""
    elements = iterate_array(response.body)
    try:
        while some := list(islice(elements, _SLICE)):
            yield some
    except (ValueError, RecursionError):
        raise _make_error(response, f"{what} as a JSON array") from None


def _parse_json_object(response: Response, what: str) -> JsonObject:
    due = f"{what} as a JSON object"
    value = _parse_body(response, due)
    if not is_object(value):
        raise _make_error(response, due)
    return value


def _parse_json_array(response: Response, what: str) -> JsonArray:
    due = f"{what} as a JSON array"
    value = _parse_body(response, due)
    if not is_array(value):
        raise _make_error(response, due)
    return value


def _decode_body(response: Response, due: str) -> str:
    # Only the type tells a page here: an output may well begin with "<html>".
    if "html" in response.content_type.lower():
        raise _make_error(response, due)
    return decode_text(response.body)


def _make_error(response: Response, due: str, problem: object = "") -> MalformedResponse:
    because = f" ({problem})" if problem else ""
    return MalformedResponse(
        f"expected {due}, but the reply is {_describe_body(response)}{because}"
    )


def _describe_body(response: Response) -> str:
    """Say in a few words what came."""
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
    """Give one text per event, its line ends kept; the header is no event."""
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
    """Tell the lines that say nothing: the header, the word for "no events", and empty ones."""
    words = line.split()
    return words in ([], ["<none>"]) or words[:2] == ["TYPE", "REASON"]


def _parse_event(row: str) -> Event:
    """Split a row from both ends, because the message in its middle may look like columns."""
    times = _ROW_END.search(row)
    first, last = (parse_time(times[1]), parse_time(times[2])) if times else (None, None)
    words = (row[: times.start()] if times else row).split(None, 2)
    kind, reason, message = [*words, "", "", ""][:3]
    return Event(parse_text(kind), parse_text(reason), parse_text(message.strip()), first, last)
