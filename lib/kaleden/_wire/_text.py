"""What people wrote, out of what machines sent: plain text, HTML pages, Kubernetes in Java."""

from __future__ import annotations

import html
import json
import re

LIMIT = 500
"""Longest message, in characters."""

_SCANNED = 16_384  # bytes; an error page has said what it has to say by then
# None of these looks at a character more than a few times, whatever a server sends.
_TITLE = re.compile(r"<title\b[^<>]*>([^<]*)", re.IGNORECASE)
_UNSEEN = re.compile(
    r"<(script|style|head)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)", re.IGNORECASE | re.DOTALL
)
_TAG = re.compile(r"<[^>]*>?")
_STATUS = re.compile(r'"kind"\s*:\s*"Status"')
_MESSAGE = re.compile(r'"message"\s*:\s*("(?:[^"\\]|\\.)*")', re.DOTALL)


def decoded(body: bytes) -> str:
    """Return the text of a body, whatever bytes it has."""
    return body.decode("utf-8", "replace").removeprefix("\ufeff")


def excerpt(body: bytes) -> str:
    """Return the text of as much of a body as a message can be made of."""
    return decoded(body[:_SCANNED])


def one_line(text: str, limit: int = LIMIT) -> str:
    """Return *text* on one line, without control characters, cut to *limit* characters."""
    printable = "".join(c if c.isprintable() else " " for c in text.strip()[: 4 * limit])
    line = " ".join(printable.split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def is_html(content_type: str, text: str) -> bool:
    """Tell an HTML page by its content type, or by how it begins."""
    start = text[:64].lstrip().lower()
    return "html" in content_type.lower() or start.startswith(("<!doctype html", "<html"))


def page_text(page: str) -> str:
    """Return an HTML page's title, or else its first words."""
    title = _TITLE.search(page)
    said = one_line(html.unescape(title[1])) if title else ""
    return said or one_line(html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", page))))


def kubernetes_message(text: str) -> str | None:
    """Return what Kubernetes said, if *text* is a Java exception that wraps it."""
    status = _STATUS.search(text)
    match = _MESSAGE.search(text, status.end()) if status else None
    if match is None:
        return None
    try:
        return one_line(json.loads(match[1], strict=False)) or None
    except ValueError:
        return None
