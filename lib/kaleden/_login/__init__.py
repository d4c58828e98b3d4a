"""How a client reaches its server, and who it is there."""

from __future__ import annotations

from kaleden._login._access import EXPLAINED_BY, Access, find_access
from kaleden._login._bearer import TokenFunction
from kaleden._login._environment import number
from kaleden._login._places import Wanted
from kaleden._login._told import Login, Looked

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
