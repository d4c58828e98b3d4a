"""HTTP: the transports, and the only package that imports httpx.

`_httpx_adapter` and `_anyio_transport` are not imported here: httpx takes longer to import than all
other modules, and most clients do not need it.
"""

from __future__ import annotations

from kaleden._http._direct import DirectTransport
from kaleden._http._h1._pool import DEFAULT_PORTS, Origin
from kaleden._http._h1._proxy import Proxy, format_credentials
from kaleden._http._h1._tls import GivenTls, detect_truncation
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
    "DEFAULT_PORTS",
    "MAX_BODY",
    "Bearer",
    "CallerTransport",
    "DirectTransport",
    "GivenTls",
    "HttpAuth",
    "HttpClient",
    "Origin",
    "Proxy",
    "Tls",
    "Transport",
    "TransportError",
    "TransportStatistics",
    "detect_truncation",
    "format_credentials",
    "library_of",
)
