"""Bearer tokens: a fixed one, and tokens that are refreshed."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, TypeAlias, final

import anyio
from anyio import to_thread
from attrs import field, frozen

from kaleden._errors import ConfigurationError, FailureKind
from kaleden._http import TransportError

logger = logging.getLogger("kaleden")

TokenFunction: TypeAlias = Callable[[], str] | Callable[[], Awaitable[str]]
"""Returns a bearer token: a plain function, which is called in a thread, or an async one."""

UNUSABLE: Final = (
    "the token must be a string of printable ASCII characters, with no space or line break: "
    "if it was read from a file, strip() it"
)

# The characters of RFC 6750 and some more, but none that could end the header.
_TOKEN = re.compile(r"[\x21-\x7e]+")


@final
@frozen
class Token:
    """A bearer token.

    Attributes:
        value: the token.
        expires: the end of its validity, if that is known.
    """

    value: str = field(repr=False)
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether it has expired."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


Ask: TypeAlias = Callable[[], Awaitable[Token]]
"""Returns a token, or raises `ConfigurationError`."""


def check_token(value: object) -> str:
    """Return *value* if it can be sent as a token.

    Raises:
        ConfigurationError: it cannot be sent; the message does not show it.
    """
    if isinstance(value, str) and value.lower().startswith("bearer "):
        raise ConfigurationError("give the token without 'Bearer ' before it")

    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ConfigurationError(UNUSABLE)

    return value


@final
class StaticToken:
    """A token that is never refreshed."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """Return the token."""
        return self._token

    async def renew(self, refused: str) -> bool:  # noqa: ARG002  # there is no other token
        """Return False: there is no other token."""
        return False


@final
class RefreshingToken:
    """Tokens that are requested at first use, after expiry, and after a refusal.

    Concurrent requests share one call of *ask* and its result.

    Args:
        ask: returns a token.
        first: the first token, if there is one.
    """

    def __init__(self, ask: Ask, first: Token | None = None) -> None:
        self._ask = ask
        self._token = first
        self._problem = ""
        self._refreshes: int = 0
        self._lock = anyio.Lock()

    async def token(self) -> str:
        """Return the token to send now; see `Bearer.token`."""
        token = self._token
        return (await self._refresh() if token is None or token.expired else token).value

    async def renew(self, refused: str) -> bool:
        """Request another token, unless another task already has; see `Bearer.renew`."""
        token = self._token
        if token is None or token.value == refused:
            try:
                token = await self._refresh()
            except TransportError as error:
                logger.warning("the server refused the token, and %s", error)
                return False

        return token.value != refused

    async def _refresh(self) -> Token:
        refreshes = self._refreshes
        async with self._lock:
            if self._refreshes == refreshes:
                # A cancellation changes nothing; the next task that holds the lock calls it.
                try:
                    self._token = await self._ask()
                except ConfigurationError as error:
                    self._token, self._problem = None, str(error)
                self._refreshes += 1
        if self._token is None:
            raise TransportError(FailureKind.NOT_AUTHENTICATED, self._problem, sent=False)

        return self._token


def ask_function(function: TokenFunction) -> Ask:
    """Return an `Ask` that calls a function of the caller."""

    async def ask() -> Token:
        try:
            value = await _call(function)
        except Exception as error:
            msg = f"the function that was given as token= raised {type(error).__name__}: {error}"
            raise ConfigurationError(msg) from error

        try:
            return Token(check_token(value))
        except ConfigurationError as error:
            msg = (
                "the function that was given as token= must return the token, a string, and "
                f"returned {type(value).__name__}: {error}"
            )
            raise ConfigurationError(msg) from None

    return ask


async def _call(function: TokenFunction) -> Any:
    if iscoroutinefunction(function):
        return await function()

    # In a list, because trio refuses a coroutine as the result of a thread. The function may wait
    # for a person; a cancelled task does not wait for it.
    [value] = await to_thread.run_sync(lambda: [function()], abandon_on_cancel=True)
    return await value if isawaitable(value) else value
