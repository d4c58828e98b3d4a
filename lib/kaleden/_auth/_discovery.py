"""Where servers and logins are looked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar, final

from attrs import frozen

from kaleden._auth._canfar_config import (
    PLACES,
    PROXY_CERTIFICATE,
    Saved,
    find_saved,
    read_saved,
)
from kaleden._auth._certificates import format_time
from kaleden._auth._environment import exists
from kaleden._auth._options import ClientOptions
from kaleden._errors import ConfigurationError


@final
@frozen
class DiscoveryStep:
    """A place where a server or a login was looked for.

    Attributes:
        place: where.
        found: what came of it: what was taken from there, or why it was passed over.
        used: whether something was taken from there.
    """

    place: str
    found: str
    used: bool = False

    def __str__(self) -> str:
        return f"{'+' if self.used else '-'} {self.place}: {self.found}"


@final
@frozen
class ConnectionInfo:
    """How a client reaches its server and who it is there; ``print`` shows it for people.

    Attributes:
        url: the server's URL with the API version; None for a transport of the caller's own.
        url_from: where the URL was found.
        credential: the kind: ``"bearer token"``, ``"bearer tokens of a function"``,
            ``"X.509 certificate"``, ``"httpx auth"``, ``"httpx client"``, ``"own transport"``, or
            ``"none"``.
        credential_from: where it was found.
        expires: until when it is valid, if that is known; aware.
        registry_user: the user at a registry of private images, if there are credentials for one.
        proxy: the proxy on the way, without its credentials.
        concurrency: requests in flight at once.
        timeout: seconds for one attempt of a request.
        create_concurrency: creates in flight at once.
        create_timeout: seconds for one attempt of a create.
        looked: everywhere that was looked, in order.
    """

    url: str | None
    url_from: str
    credential: str
    credential_from: str
    expires: datetime | None
    registry_user: str | None
    proxy: str | None
    concurrency: int
    timeout: float
    create_concurrency: int
    create_timeout: float
    looked: tuple[DiscoveryStep, ...] = ()

    def __str__(self) -> str:
        until = "" if self.expires is None else f", until {format_time(self.expires)}"
        limits = (
            f"{self.concurrency} requests at once, {self.timeout:g} s each; "
            f"{self.create_concurrency} creates, {self.create_timeout:g} s each"
        )
        lines = [
            f"server      {self.url or 'behind a transport of your own'} ({self.url_from})",
            f"credential  {self.credential} ({self.credential_from}){until}",
            f"registry    {self.registry_user or 'no credentials for private images'}",
            f"proxy       {self.proxy or 'none'}",
            f"limits      {limits}",
            *(f"  {looked}" for looked in self.looked),
        ]
        return "\n".join(lines)


T = TypeVar("T")


@final
class Discovery:
    """The places of one search, which remember what was taken from them, or why nothing.

    Args:
        options: the arguments of the client.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.looked: list[DiscoveryStep] = []
        self.home = _home()

    @cached_property
    def saved(self) -> Saved | None:
        """What the ``canfar`` client has saved, if it has.

        Raises:
            ConfigurationError: it cannot be read.
        """
        path = None if self.home is None else find_saved(self.home)
        if path is None or self.home is None:
            self.passed_over(f"~/{PLACES[0]}", "not there")
            return None

        return read_saved(path, self.home)

    @property
    def proxy_certificate(self) -> Path | None:
        """The certificate at its usual place, if there is one."""
        path = None if self.home is None else self.home / PROXY_CERTIFICATE
        if path is None or not exists(path):
            self.passed_over(f"~/{PROXY_CERTIFICATE}", "not there")
            return None

        return path

    def took(self, place: str, what: str) -> None:
        """Remember what was taken from a place."""
        self.looked.append(DiscoveryStep(place, what, used=True))

    def passed_over(self, place: str, why: str) -> None:
        """Remember why nothing was taken from a place."""
        self.looked.append(DiscoveryStep(place, why))

    def attempt(self, place: str, read: Callable[[], T], *, needed: bool) -> T | None:
        """Read what is at a place; if nothing can be read, pass it over unless it is *needed*.

        Raises:
            ConfigurationError: it is needed, and cannot be read.
        """
        try:
            return read()
        except ConfigurationError as error:
            if needed:
                raise
            self.passed_over(place, str(error))
            return None

    def named(self, path: Path) -> str:
        """Write a path as people know it."""
        if self.home is not None and path.is_relative_to(self.home):
            return f"~/{path.relative_to(self.home).as_posix()}"

        return str(path)


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None  # As in a container whose user has no name.
