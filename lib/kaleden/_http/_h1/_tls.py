"""The option that every TLS context of kaleden has."""

from __future__ import annotations

import ssl
from typing import Final

# Absent where OpenSSL is older than 3.0, which always reports the truncation.
_IGNORE_TRUNCATION: Final = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)


def detect_truncation(context: ssl.SSLContext) -> ssl.SSLContext:
    """Make connections fail that end without TLS's ``close_notify`` alert; return *context*.

    Otherwise a reply that ends with its connection can be cut short by anyone on the network path,
    and is taken as complete (RFC 8446 §6.1, RFC 9112 §9.8). Python up to 3.11.2 makes contexts that
    ignore it (CPython issue 95494).
    """
    context.options &= ~_IGNORE_TRUNCATION
    return context
