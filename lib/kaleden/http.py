"""Public HTTP interfaces: a transport for httpx, and the types for writing a custom transport.

::

    async with httpx.AsyncClient(transport=kaleden.http.AnyioTransport()) as client:
        ...
"""

from __future__ import annotations

from kaleden._http import Transport, TransportError
from kaleden._http._anyio_transport import AnyioTransport
from kaleden._public import publish as _publish
from kaleden._wire import FORM_TYPE, Request, Response

__all__ = ("FORM_TYPE", "AnyioTransport", "Request", "Response", "Transport", "TransportError")

_publish(__name__, __all__, globals())
