"""What a client tells of its login: nothing secret."""

from __future__ import annotations

from datetime import datetime
from typing import final

from attrs import frozen

from kaleden._auth._certificates import told_time


@final
@frozen
class Looked:
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
class Login:
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
    looked: tuple[Looked, ...] = ()

    def __str__(self) -> str:
        until = "" if self.expires is None else f", until {told_time(self.expires)}"
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
