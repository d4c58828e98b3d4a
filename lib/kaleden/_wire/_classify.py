"""Classification of HTTP responses: success, or an `ErrorResponse` with kind and message."""

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
    """A response that reports a failure.

    Attributes:
        kind: the kind of failure, which determines the caller's next step.
        message: the server's text on one line, about 500 characters at most.
        status: the HTTP status.
        retry_after: seconds that the server asks to wait; None if it does not ask.
    """

    kind: FailureKind
    message: str
    status: int
    retry_after: float | None = None


def classify(response: Response, *, now: datetime | None = None) -> ErrorResponse | None:
    """Return the failure that a response reports. Never raises.

    Args:
        response: the response.
        now: the current time, aware, for a Retry-After header that is a date. Defaults to the
            system clock.

    Returns:
        None for a success (2xx), otherwise the failure.
    """
    if 200 <= response.status < 300:
        return None
    kind, message = _classify_error(response)
    return ErrorResponse(kind, message, response.status, _parse_retry_after(response, now))


def _classify_error(response: Response) -> tuple[FailureKind, str]:
    status, message = response.status, _extract_message(response)
    if 300 <= status < 400:
        return FailureKind.PROTOCOL, _describe_redirect(response)
    if status == 404 and not _is_skaha_text(response):
        return FailureKind.PROTOCOL, f"{message}: no Skaha API answers there; is the URL right?"
    if status == 400 and _ANONYMOUS in message:
        return (
            FailureKind.NOT_AUTHENTICATED,
            f"the server took the call as anonymous, log in: {message}",
        )
    if status == 400 and _QUOTA.search(message):
        return FailureKind.QUOTA, message
    return _choose_kind(status), message


def _choose_kind(status: int) -> FailureKind:
    if status in _KINDS:
        return _KINDS[status]
    if 400 <= status < 500:
        return FailureKind.BAD_REQUEST
    return FailureKind.SERVER_ERROR if 500 <= status < 600 else FailureKind.PROTOCOL


def _extract_message(response: Response) -> str:
    """Return the server's message, or a description of the response if it has no text."""
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


_GENERIC = re.compile(
    r"(404|page|not found|(default|no) backend|no route matched with those values|service|"
    r"(the )?requested (url|resource)|was|on this server|[\s:.-])+",
    re.IGNORECASE,
)


def _is_skaha_text(response: Response) -> bool:
    """Whether the body is an error text of a Skaha server, not of a proxy or another server.

    Skaha's error text is never HTML, JSON or empty. It names the session, whereas a proxy sends
    a generic "not found".
    """
    text = decode_excerpt(response.body)
    if _GENERIC.fullmatch(text.strip()):
        return False
    kind = response.content_type.partition(";")[0].strip().lower()
    return bool(text.strip()) and kind in {"", "text/plain"} and not is_html(kind, text)


def _describe_redirect(response: Response) -> str:
    """Describe a redirect by the host of its target; the rest of the URL may hold a secret."""
    target = _format_host(response.headers.get("location", ""))
    return (
        f"{_format_status(response.status)} to {target}: redirects are not followed, because "
        "credentials are sent to no other server; is the URL right?"
    )


def _format_host(location: str) -> str:
    try:
        host = urlsplit(location).hostname
    except ValueError:
        host = None
    return format_value(host) if host else "a path on the same host" if location else "nowhere"


def _format_status(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _parse_retry_after(response: Response, now: datetime | None) -> float | None:
    """Return the seconds of a Retry-After header: a number or a date (RFC 9110 section 10.2.3)."""
    value = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    return _parse_retry_date(value, now or datetime.now(UTC)) if value else None


def _parse_retry_date(date: str, now: datetime) -> float | None:
    # Imported here because it is slow to load, and few servers send a date.
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        deadline = parsedate_to_datetime(date)
        deadline = deadline if deadline.tzinfo is not None else deadline.replace(tzinfo=UTC)
        seconds = (deadline - now).total_seconds()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if 0 <= seconds < math.inf else None
