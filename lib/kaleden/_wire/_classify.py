"""What a reply came to: nothing to say about a success, else its kind and the server's words."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from attrs import frozen

from kaleden._errors import FailureKind
from kaleden._wire._primitives import (
    decode_excerpt,
    extract_kubernetes_message,
    extract_page_text,
    format_one_line,
    is_html,
)
from kaleden._wire._responses import Response
from kaleden._wire._validation import format_value

_KINDS = {
    401: FailureKind.NOT_AUTHENTICATED,
    403: FailureKind.NOT_AUTHORIZED,
    404: FailureKind.NOT_FOUND,
    429: FailureKind.UNAVAILABLE,
    503: FailureKind.UNAVAILABLE,
}
_ANONYMOUS = "cannot get group memberships for anonymous"
_QUOTA = re.compile(r"has reached the maximum of \d+ active session", re.IGNORECASE)
_SECONDS = re.compile(r"\d{1,12}(?:\.\d{0,12})?", re.ASCII)


@frozen
class ErrorResponse:
    """A reply that is no success.

    Attributes:
        kind: by what the caller can do next.
        message: the server's own text on one line, at most 500 characters or so.
        status: the HTTP status.
        retry_after: how many seconds the server asks to wait, if it asks.
    """

    kind: FailureKind
    message: str
    status: int
    retry_after: float | None = None


def classify(response: Response, *, now: datetime | None = None) -> ErrorResponse | None:
    """Tell what a reply came to; never raises, whatever the reply.

    Args:
        response: the reply.
        now: the present, for a Retry-After that is a date; aware. The clock's by default.

    Returns:
        None for a success (2xx), else what went wrong.
    """
    if 200 <= response.status < 300:
        return None
    kind, message = _classify_error(response)
    return ErrorResponse(kind, message, response.status, _parse_retry_after(response, now))


def _classify_error(response: Response) -> tuple[FailureKind, str]:
    status, said = response.status, _extract_message(response)
    if 300 <= status < 400:
        return FailureKind.PROTOCOL, _describe_redirect(response)
    if status == 404 and not _is_skaha_text(response):
        return FailureKind.PROTOCOL, f"{said}: no Skaha API answers there; is the URL right?"
    if status == 400 and _ANONYMOUS in said:
        return (
            FailureKind.NOT_AUTHENTICATED,
            f"the server took the call as anonymous, log in: {said}",
        )
    if status == 400 and _QUOTA.search(said):
        return FailureKind.QUOTA, said
    return _choose_kind(status), said


def _choose_kind(status: int) -> FailureKind:
    if status in _KINDS:
        return _KINDS[status]
    if 400 <= status < 500:
        return FailureKind.BAD_REQUEST
    return FailureKind.SERVER_ERROR if 500 <= status < 600 else FailureKind.PROTOCOL


def _extract_message(response: Response) -> str:
    """Return what the server said, or a sentence of ours if it said nothing."""
    text = decode_excerpt(response.body)
    if is_html(response.content_type, text):
        title = extract_page_text(text)
        return (
            f"{_format_status(response.status)}, an HTML page that says {format_value(title, 200)}"
        )
    inner = extract_kubernetes_message(text)
    if inner is not None:
        return f"{inner} (from Kubernetes)"
    return format_one_line(text) or f"{_format_status(response.status)}, with an empty body"


_GENERIC = re.compile(r"(404|page|not found|[\s:.-])+", re.IGNORECASE)


def _is_skaha_text(response: Response) -> bool:
    """Tell the server's own error text, which is never HTML, never JSON and never empty.

    It says of which session it speaks; a proxy says just that nothing was found.
    """
    text = decode_excerpt(response.body)
    if _GENERIC.fullmatch(text.strip()):
        return False
    kind = response.content_type.partition(";")[0].strip().lower()
    return bool(text.strip()) and kind in {"", "text/plain"} and not is_html(kind, text)


def _describe_redirect(response: Response) -> str:
    """Name only the host of the target: the rest of it may be a secret."""
    return (
        f"{_format_status(response.status)} to {_format_host(response.headers.get('location', ''))}: "
        "redirects are not followed, because credentials go to no other place; is the URL right?"
    )


def _format_host(location: str) -> str:
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return format_value(host) if host else "a place on the same host" if location else "nowhere"


def _format_status(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _parse_retry_after(response: Response, now: datetime | None) -> float | None:
    """Return the seconds of Retry-After, which is a number of them or a date."""
    value = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    return _parse_retry_date(value, now or datetime.now(UTC)) if value else None


def _parse_retry_date(date: str, now: datetime) -> float | None:
    # Few servers name a date, and this loads slowly.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        moment = parsedate_to_datetime(date)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if 0 <= seconds < math.inf else None
