"""The one place that knows HTTP and httpx.

`_httpx`, with its `HttpxTransport`, is not imported here: httpx takes longer to import than all the
rest, and most clients do without.
"""

from __future__ import annotations

from kaleden._http._direct import DirectTransport
from kaleden._http._h1._tls import detect_truncation
from kaleden._http._httpx_client import CallerTransport, HttpAuth, HttpClient, library_of
from kaleden._http._transport import (
    MAX_BODY,
    Bearer,
    Tls,
    Transport,
    TransportError,
    TransportStatistics,
)

__all__ = (
    "MAX_BODY",
    "Bearer",
    "CallerTransport",
    "DirectTransport",
    "HttpAuth",
    "HttpClient",
    "Tls",
    "Transport",
    "TransportError",
    "TransportStatistics",
    "detect_truncation",
    "library_of",
)
