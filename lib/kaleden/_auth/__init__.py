"""How a client reaches its server, and who it is there."""

from __future__ import annotations

from kaleden._auth._access import EXPLAINED_BY, Access, find_access
from kaleden._auth._discovery import Login, Looked, Wanted
from kaleden._auth._environment import number
from kaleden._auth._tokens import TokenFunction

__all__ = (
    "EXPLAINED_BY",
    "Access",
    "Login",
    "Looked",
    "TokenFunction",
    "Wanted",
    "find_access",
    "number",
)
