"""Who may use the embedded platform, and what they show to prove that they are who they are.

Pure: the clock is passed in. Of tokens only digests are kept.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Callable

from attrs import define, field, frozen

from kaleden.local._platform._model import HTTPError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_COMMON_NAME = re.compile(r"(?:^|,)CN=([^,]+)")


def new_token() -> str:
    """Make a bearer token, which may follow ``--token``: none begins with a hyphen."""
    return secrets.token_hex(24)


@frozen
class _Account:
    name: str
    authorized: bool


@frozen
class _Grant:
    """What a token gives: a user, until a time in seconds since the epoch."""

    user: str
    expires: float


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@define
class Accounts:
    """The users of a platform, and their tokens.

    Args:
        clock: gives seconds since the epoch; tokens expire by it.
    """

    clock: Callable[[], float]
    _accounts: dict[str, _Account] = field(init=False, factory=dict[str, _Account])
    _grants: dict[bytes, _Grant] = field(init=False, factory=dict[bytes, _Grant], repr=False)

    def add(self, name: str, *, authorized: bool = True) -> None:
        """Add a user, or change one.

        Args:
            name: letters, digits, ``-`` and ``_``.
            authorized: False for somebody whom the platform knows and does not admit.

        Raises:
            ValueError: the name is none.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"a user's name is letters, digits, '-' and '_', not {name!r}")
        self._accounts[name] = _Account(name, authorized)

    def check(self, user: str) -> None:
        """Make sure that there is such a user.

        Raises:
            ValueError: there is not.
        """
        if user not in self._accounts:
            raise ValueError(f"there is no user {user!r}: add_user({user!r}) first")

    def accept(self, token: str, user: str, expires_in: float = math.inf) -> str:
        """Take a token for this user from now on; return it."""
        self.check(user)
        self._grants[_digest(token)] = _Grant(user, self.clock() + expires_in)
        return token

    def issue(self, user: str, expires_in: float = math.inf) -> str:
        """Make a token for this user."""
        return self.accept(new_token(), user, expires_in)

    def revoke(self, token: str) -> None:
        """Take a token no longer.

        Raises:
            ValueError: there is no such token.
        """
        if self._grants.pop(_digest(token), None) is None:
            raise ValueError("this token is not one that the platform takes: nothing to revoke")

    def identify(self, authorization: str | None, subject: str | None) -> str | None:
        """Tell who asks; a token counts before a certificate.

        Args:
            authorization: the header of that name; None without one.
            subject: whom the certificate names, which TLS has verified, as RFC 4514 writes it;
                None without one.

        Returns:
            The user; None for somebody who did not say.

        Raises:
            Refused: 401 for what proves nothing, 403 for who may not use the platform.
        """
        if authorization:
            return self._admitted(self._bearer(authorization))
        if subject is not None:
            # The names that proxy certificates add stand before it.
            names = _COMMON_NAME.findall(subject)
            return self._admitted(names[-1] if names else "")
        return None

    def _bearer(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        grant = self._grants.get(_digest(token.strip()))
        if scheme.lower() != "bearer" or grant is None or grant.expires <= self.clock():
            raise HTTPError(401, "Unauthorized")
        return grant.user

    def _admitted(self, user: str) -> str:
        account = self._accounts.get(user)
        if account is None or not account.authorized:
            raise HTTPError(403, "Not authorized to use the skaha system")
        return user
