"""The one place that knows HTTP and httpx."""

from __future__ import annotations

from kaleden._http._httpx import HttpxStatistics, HttpxTransport
from kaleden._http._transport import Transport, TransportError

__all__ = ("HttpxStatistics", "HttpxTransport", "Transport", "TransportError")
