"""The server, the login and the transport of a client."""

from __future__ import annotations

from kaleden._auth._access import EXPLAINED_BY, ServerAccess, find_server_access
from kaleden._auth._discovery import ConnectionInfo, DiscoveryStep
from kaleden._auth._environment import number
from kaleden._auth._options import ClientOptions
from kaleden._auth._tokens import TokenFunction

__all__ = (
    "EXPLAINED_BY",
    "ClientOptions",
    "ConnectionInfo",
    "DiscoveryStep",
    "ServerAccess",
    "TokenFunction",
    "find_server_access",
    "number",
)
