"""The search for a server and a login, and its record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TypeVar, final

from attrs import frozen

from kaleden._auth._canfar_config import (
    CONFIG_PATHS,
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
    """One source in which a server or a login was sought.

    Attributes:
        place: the source: an argument, a variable, a file.
        found: the value that was used, or why the source was skipped.
        used: whether a value from it was used.
    """

    place: str
    found: str
    used: bool = False

    def __str__(self) -> str:
        return f"{'+' if self.used else '-'} {self.place}: {self.found}"


@final
@frozen
class ConnectionInfo:
    """The server and the login of a client, and their sources; ``print`` shows it for people.

    Attributes:
        url: the server's URL with the API version; None for a transport of the caller's own.
        url_from: the source of the URL.
        credential: the kind of login: ``"bearer token"``, ``"bearer tokens of a function"``,
            ``"X.509 certificate"``, ``"httpx auth"``, ``"httpx client"``, ``"own transport"``, or
            ``"none"``.
        credential_from: the source of the login.
        expires: the end of its validity, if that is known; aware.
        registry_user: the user at a registry of private images, if there are credentials for one.
        proxy: the URL of the proxy, without its credentials.
        concurrency: requests in flight at once.
        timeout: seconds for one attempt of a request.
        create_concurrency: creates in flight at once.
        create_timeout: seconds for one attempt of a create.
        looked: all sources, in the order of the search.
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
    """One search, with a record of each source."""

    def __init__(self, options: ClientOptions) -> None:
        self.options = options
        self.steps: list[DiscoveryStep] = []
        try:
            self.home: Path | None = Path.home()
        except RuntimeError:
            self.home = None  # For example in a container whose user has no name.

    @cached_property
    def saved(self) -> Saved | None:
        """The configuration that the ``canfar`` client has saved, if any.

        Raises:
            ConfigurationError: it cannot be read.
        """
        path = None if self.home is None else find_saved(self.home)
        if path is None or self.home is None:
            self.record_skipped(f"~/{CONFIG_PATHS[0]}", "not there")
            return None

        return read_saved(path, self.home)

    @property
    def proxy_certificate(self) -> Path | None:
        """The path of the certificate in the home directory, if it exists."""
        path = None if self.home is None else self.home / PROXY_CERTIFICATE
        if path is None or not exists(path):
            self.record_skipped(f"~/{PROXY_CERTIFICATE}", "not there")
            return None

        return path

    def record_used(self, source: str, value: str) -> None:
        """Record the value that was used from a source."""
        self.steps.append(DiscoveryStep(source, value, used=True))

    def record_skipped(self, source: str, reason: str) -> None:
        """Record why a source was skipped."""
        self.steps.append(DiscoveryStep(source, reason))

    def attempt(self, source: str, read: Callable[[], T], *, needed: bool) -> T | None:
        """Read a source; if that fails, skip the source unless it is *needed*.

        Raises:
            ConfigurationError: it is needed, and cannot be read.
        """
        try:
            return read()
        except ConfigurationError as error:
            if needed:
                raise
            self.record_skipped(source, str(error))
            return None

    def format_path(self, path: Path) -> str:
        """Return a path as text, with ``~`` for the home directory."""
        if self.home is not None and path.is_relative_to(self.home):
            return f"~/{path.relative_to(self.home).as_posix()}"

        return str(path)
