"""Bearer tokens: one that stays, and those of somebody who is asked for another."""

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
"""What gives a bearer token: a plain function, which is called in a thread, or an async one."""

UNUSABLE: Final = (
    "the token must be a string of printable ASCII characters, with no space or line break: "
    "if it was read from a file, strip() it"
)

# What RFC 6750 allows in a bearer token, and a little more; never what could end the header.
_TOKEN = re.compile(r"[\x21-\x7e]+")


@final
@frozen
class Token:
    """A bearer token.

    Attributes:
        value: what is sent.
        expires: until when it is valid, if that is known.
    """

    value: str = field(repr=False)
    expires: datetime | None = None

    @property
    def expired(self) -> bool:
        """Whether it is not worth sending any more."""
        return self.expires is not None and datetime.now(UTC) >= self.expires


Ask: TypeAlias = Callable[[], Awaitable[Token]]
"""Gets a token, or raises `ConfigurationError`."""


def check_token(value: object) -> str:
    """Return *value* if it can be sent as a token.

    Raises:
        ConfigurationError: it cannot; the message does not show it.
    """
    if isinstance(value, str) and value.lower().startswith("bearer "):
        raise ConfigurationError("give the token without 'Bearer ' before it")

    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ConfigurationError(UNUSABLE)

    return value


@final
class StaticToken:
    """A token that stays what it is."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        """Tell the token."""
        return self._token

    async def renew(self, refused: str) -> bool:  # noqa: ARG002  # there is no other one
        """Hear of a 401, in vain."""
        return False


@final
class RefreshingToken:
    """Tokens of somebody who is asked at first, when one has expired, and when one was refused.

    However many requests want one at a time, one of them asks, and all of them hear the answer.

    Args:
        ask: gets a token.
        first: the token to begin with, if there is one.
    """

    def __init__(self, ask: Ask, first: Token | None = None) -> None:
        self._ask = ask
        self._token = first
        self._problem = ""
        self._answers = 0
        self._lock = anyio.Lock()

    async def token(self) -> str:
        """Tell the token to send now; see `Bearer.token`."""
        token = self._token
        return (await self._asked() if token is None or token.expired else token).value

    async def renew(self, refused: str) -> bool:
        """Hear of a 401, and ask, unless somebody else has by now; see `Bearer.renew`."""
        token = self._token
        if token is None or token.value == refused:
            try:
                token = await self._asked()
            except TransportError as error:
                logger.warning("the server refused the token, and %s", error)
                return False

        return token.value != refused

    async def _asked(self) -> Token:
        answers = self._answers
        async with self._lock:
            if self._answers == answers:
                await self._do_ask()
        if self._token is None:
            raise TransportError(FailureKind.NOT_AUTHENTICATED, self._problem, sent=False)

        return self._token

    async def _do_ask(self) -> None:
        # If this is cancelled nothing has changed, and whoever waits asks next.
        try:
            self._token = await self._ask()
        except ConfigurationError as error:
            self._token, self._problem = None, str(error)
        self._answers += 1


def asks_function(function: TokenFunction) -> Ask:
    """Ask a function of the caller's for a token."""

    async def ask() -> Token:
        try:
            value = await _called(function)
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


def asks_in_thread(read: Callable[[], Token]) -> Ask:
    """Ask something that reads files."""

    async def ask() -> Token:
        return await to_thread.run_sync(read)

    return ask


async def _called(function: TokenFunction) -> Any:
    if iscoroutinefunction(function):
        return await function()

    # In a list, because trio takes no coroutine from a thread. It may wait for a person; whoever is
    # cancelled meanwhile need not.
    [value] = await to_thread.run_sync(lambda: [function()], abandon_on_cancel=True)
    return await value if isawaitable(value) else value
