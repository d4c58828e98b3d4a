"""Users of the embedded platform: bearer tokens, certificates and authorization.

No I/O: the clock is an argument. Only digests of the tokens are stored.
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


def make_token() -> str:
    """Return a random bearer token.

    A token never begins with a hyphen, so that it can follow ``--token`` on a command line.
    """
    return secrets.token_hex(24)


@frozen
class _TokenGrant:
    """The user that a token belongs to, and when it expires (seconds since the epoch)."""

    user: str
    expires: float


def _hash_token(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@define
class Accounts:
    """The users of a platform, and their tokens.

    Args:
        clock: returns seconds since the epoch. It decides when tokens expire.
    """

    clock: Callable[[], float]
    # Whether each user has the right to use the platform.
    _authorized: dict[str, bool] = field(init=False, factory=dict[str, bool])
    _grants: dict[bytes, _TokenGrant] = field(
        init=False, factory=dict[bytes, _TokenGrant], repr=False
    )

    def add(self, name: str, *, authorized: bool = True) -> None:
        """Add a user, or change one.

        Args:
            name: letters, digits, ``-`` and ``_``.
            authorized: False for a known user without the right to use the platform.

        Raises:
            ValueError: the name is invalid.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"a user's name is letters, digits, '-' and '_', not {name!r}")
        self._authorized[name] = authorized

    def check_user(self, user: str) -> None:
        """Check that the user exists.

        Raises:
            ValueError: the user does not exist.
        """
        if user not in self._authorized:
            raise ValueError(f"there is no user {user!r}: add_user({user!r}) first")

    def accept_token(self, token: str, user: str, expires_in: float = math.inf) -> str:
        """Accept the token for this user, for *expires_in* seconds; return it."""
        self.check_user(user)
        self._grants[_hash_token(token)] = _TokenGrant(user, self.clock() + expires_in)
        return token

    def issue_token(self, user: str, expires_in: float = math.inf) -> str:
        """Create a token for this user, valid for *expires_in* seconds."""
        return self.accept_token(make_token(), user, expires_in)

    def revoke_token(self, token: str) -> None:
        """Stop accepting the token.

        Raises:
            ValueError: the platform does not accept this token.
        """
        if self._grants.pop(_hash_token(token), None) is None:
            raise ValueError("the platform does not accept this token: there is nothing to revoke")

    def identify(self, authorization: str | None, subject: str | None) -> str | None:
        """Return the user of a request. A token takes precedence over a certificate.

        Args:
            authorization: the ``Authorization`` header, or None.
            subject: the subject of the client's certificate, which TLS has verified, as an
                RFC 4514 string; None without a certificate.

        Returns:
            The user; None for an anonymous request.

        Raises:
            HTTPError: 401 for an invalid or expired token, 403 for a user without the right
                to use the platform.
        """
        if authorization:
            return self._check_authorized(self._find_token_user(authorization))
        if subject is not None:
            # RFC 4514 puts the last name first: each proxy certificate prepends a common name to
            # the user's.
            names = _COMMON_NAME.findall(subject)
            return self._check_authorized(names[-1] if names else "")
        return None

    def _find_token_user(self, authorization: str) -> str:
        scheme, _, token = authorization.partition(" ")
        grant = self._grants.get(_hash_token(token.strip()))
        if scheme.lower() != "bearer" or grant is None or grant.expires <= self.clock():
            raise HTTPError(401, "Unauthorized")
        return grant.user

    def _check_authorized(self, user: str) -> str:
        if not self._authorized.get(user):
            raise HTTPError(403, "Not authorized to use the skaha system")
        return user
