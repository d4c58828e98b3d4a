"""The one place that knows HTTP and httpx."""

from __future__ import annotations

from kaleden._http._direct import DirectTransport
from kaleden._http._httpx import HttpxTransport
from kaleden._http._transport import Bearer, Tls, Transport, TransportError, TransportStatistics

__all__ = (
    "Bearer",
    "DirectTransport",
    "HttpxTransport",
    "Tls",
    "Transport",
    "TransportError",
    "TransportStatistics",
)
