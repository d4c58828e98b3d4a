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
    array_elements,
    decoded,
    excerpt,
    is_array,
    is_html,
    is_object,
    one_line,
    page_text,
    parse_json,
    text,
    time,
)
from kaleden._wire._validation import check_id, shown


def _read_availability(document: str) -> Availability:
    """Read an availability document.

    Raises:
        ValueError: it is none.
    """
    root = _parse(document, "availability")
    said = next((_content(each) for each in _named(root, "available")), "")
    if said not in {"true", "false"}:
        raise ValueError("it does not say whether the service is available")
    notes = tuple(_content(each) for each in _named(root, "note"))
    return Availability(said == "true", notes)


def _read_capabilities(document: str) -> tuple[Capability, ...]:
    """Read a capabilities document.

    Raises:
        ValueError: it is none.
    """
    root = _parse(document, "capabilities")
    return tuple(
        Capability(each.get("standardID", ""), tuple(_interfaces(each)))
        for each in _named(root, "capability")
    )


def _interfaces(capability: ET.Element) -> Iterator[Interface]:
    for interface in _named(capability, "interface"):
        methods = _named(interface, "securityMethod")
        yield Interface(
            next((_content(url) for url in _named(interface, "accessURL")), ""),
            tuple(each.get("standardID", "") for each in methods if each.get("standardID")),
            interface.get("role"),
            interface.get("version"),
        )


def _parse(document: str, root_name: str) -> ET.Element:
    # Entities are what makes XML of strangers dangerous, and only a doctype can declare them.
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise ValueError("it has a DOCTYPE, which is refused")
    try:
        root = ET.fromstring(document)  # noqa: S314 # no doctype, no entities
    except ET.ParseError as error:
        raise ValueError(f"no XML: {error}") from None
    if _local(root) != root_name:
        raise ValueError(f"its root is <{_local(root)}>")
    return root


def _named(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Give the children of that name, in whatever namespace: servers differ in its version."""
    return (child for child in element if _local(child) == name)


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _content(element: ET.Element) -> str:
    return (element.text or "").strip()


_ROW_START = re.compile(r"(?:Normal|Warning|<none>)\s")
_TIME = r"(<none>|\d{4}-\d\d-\d\dT\S+)"
_ROW_END = re.compile(rf"\s{_TIME}\s+{_TIME}$")


T = TypeVar("T")

# About a millisecond's worth.
_SLICE = 100


class MalformedResponse(ValueError):  # says what it is, as kaleden's errors do
    """A reply that is not what the Skaha API gives here; the message says what came."""


def _size(body: bytes) -> str:
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
    body: bytes = field(default=b"", repr=_size)

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
    return _decoders.session_info(_json_object(response, "a session"), response.body)


def parse_raw_info(response: Response) -> JsonObject:
    """Read one session, as the server tells of it.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _json_object(response, "a session")


@IncrementalParser
def parse_list(response: Response) -> Generator[None, None, Listing]:
    """Read sessions; what is no object in the list stands apart, and costs no other.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    sessions: list[SessionInfo] = []
    malformed: list[Any] = []
    for some in _slices(response, "sessions"):
        sessions += [_decoders.session_info(each) for each in some if is_object(each)]
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
    for some in _slices(response, "sessions"):
        elements += some
        yield
    return elements


def parse_logs(response: Response) -> str:
    """Return a session's output; ``""`` also for sessions that have none yet, or are not there.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    return _text(response, "a session's output")


def parse_events(response: Response) -> tuple[Event, ...]:
    """Read the table of events; a message may have runs of spaces and line ends in it.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    return tuple(_event(row) for row in _rows(_text(response, "a table of events")))


def parse_create(response: Response) -> str:
    """Return the id of the session that was created.

    Raises:
        UnreadableReply: the reply is not an id. The session may be there all the same.
    """
    created = _text(response, "a session id").strip()
    try:
        return check_id(created)
    except InvalidRequest:
        raise _unreadable(response, "a session id") from None


def parse_done(response: Response) -> bool:
    """Return True: a renew or a delete was answered, which is all that the server says.

    Raises:
        UnreadableReply: the reply is an HTML page.
    """
    _text(response, "an empty body")
    return True


def parse_stats(response: Response) -> PlatformStats:
    """Read the platform's resources.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _decoders.stats(_json_object(response, "platform statistics"))


def parse_images(response: Response) -> tuple[Image, ...]:
    """Read the images; an element without an id is left out.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    objects = (each for each in _json_array(response, "images") if is_object(each))
    return tuple(_decoders.image(each) for each in objects if text(each.get("id")))


def parse_context(response: Response) -> ResourceOptions:
    """Read what sessions may ask for.

    Raises:
        UnreadableReply: the reply is not a JSON object.
    """
    return _decoders.context(_json_object(response, "the context"))


def parse_repositories(response: Response) -> tuple[str, ...]:
    """Read the registry hosts; an element that is no text is left out.

    Raises:
        UnreadableReply: the reply is not a JSON array.
    """
    return tuple(each for each in _json_array(response, "registry hosts") if text(each))


def parse_availability(response: Response) -> Availability:
    """Read whether the service is there.

    Raises:
        UnreadableReply: the reply is not a VOSI availability document.
    """
    try:
        return _read_availability(decoded(response.body))
    except ValueError as problem:
        raise _unreadable(response, "VOSI availability XML", problem) from None


def parse_capabilities(response: Response) -> tuple[Capability, ...]:
    """Read what the service can do.

    Raises:
        UnreadableReply: the reply is not a VOSI capabilities document.
    """
    try:
        return _read_capabilities(decoded(response.body))
    except ValueError as problem:
        raise _unreadable(response, "VOSI capabilities XML", problem) from None


def _json(response: Response, due: str) -> Any:
    try:
        return parse_json(response.body)
    except (ValueError, RecursionError):
        raise _unreadable(response, due) from None


def _slices(response: Response, what: str) -> Iterator[JsonArray]:
    """Read a JSON array, some elements at a time."""
    elements = array_elements(response.body)
    try:
        while some := list(islice(elements, _SLICE)):
            yield some
    except (ValueError, RecursionError):
        raise _unreadable(response, f"{what} as a JSON array") from None


def _json_object(response: Response, what: str) -> JsonObject:
    due = f"{what} as a JSON object"
    value = _json(response, due)
    if not is_object(value):
        raise _unreadable(response, due)
    return value


def _json_array(response: Response, what: str) -> JsonArray:
    due = f"{what} as a JSON array"
    value = _json(response, due)
    if not is_array(value):
        raise _unreadable(response, due)
    return value


def _text(response: Response, due: str) -> str:
    # Only the type tells a page here: an output may well begin with "<html>".
    if "html" in response.content_type.lower():
        raise _unreadable(response, due)
    return decoded(response.body)


def _unreadable(response: Response, due: str, problem: object = "") -> MalformedResponse:
    because = f" ({problem})" if problem else ""
    return MalformedResponse(f"expected {due}, but the reply is {_came(response)}{because}")


def _came(response: Response) -> str:
    """Say in a few words what came."""
    body = excerpt(response.body)
    if not body.strip():
        return "empty"
    if is_html(response.content_type, body):
        return f"an HTML page that says {shown(page_text(body), 80)}: is the URL right?"
    kind = one_line(response.content_type, 60) or "without content type"
    return f"{kind}, {shown(body.strip(), 80)}"


def _rows(table: str) -> Iterator[str]:
    """Give one text per event, its line ends kept; the header is no event."""
    pending: list[str] = []
    for line in table.split("\n"):
        if pending and (_ROW_START.match(line) or _ROW_END.search(pending[-1])):
            yield "\n".join(pending)
            pending = []
        if pending or not _is_idle(line):
            pending.append(line.rstrip())
    if pending:
        yield "\n".join(pending)


def _is_idle(line: str) -> bool:
    """Tell the lines that say nothing: the header, the word for "no events", and empty ones."""
    words = line.split()
    return words in ([], ["<none>"]) or words[:2] == ["TYPE", "REASON"]


def _event(row: str) -> Event:
    """Split a row from both ends, because the message in its middle may look like columns."""
    times = _ROW_END.search(row)
    first, last = (time(times[1]), time(times[2])) if times else (None, None)
    words = (row[: times.start()] if times else row).split(None, 2)
    kind, reason, message = [*words, "", "", ""][:3]
    return Event(text(kind), text(reason), text(message.strip()), first, last)
