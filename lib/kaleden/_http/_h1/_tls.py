"""TLS contexts: the option that every one of kaleden's has, and those of the caller."""

from __future__ import annotations

import ssl
from typing import Final, final

# Absent where OpenSSL is older than 3.0, which always reports the truncation.
_IGNORE_TRUNCATION: Final = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


def detect_truncation(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make connections fail that end without TLS's ``close_notify`` alert; return *context*.

    Otherwise a response that ends with its connection can be truncated by anyone on the network
    path and still seems complete (RFC 8446 §6.1, RFC 9112 §9.8). Python up to 3.11.2 makes contexts
    that ignore a missing alert (CPython issue 95494).
    """
    context.options &= ~_IGNORE_TRUNCATION
    return context


@final
class GivenTls:
    """A context of the caller, which is used as it is; see `Tls`."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    async def context(self) -> ssl.SSLContext:
        """Return the context."""
        return self._context
