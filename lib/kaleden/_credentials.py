"""Where the server is and who asks."""

from __future__ import annotations

import ipaddress
import re
from typing import final
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from kaleden._errors import ConfigurationError

_LABEL = re.compile(r"(?!xn--$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|xn--[A-Za-z0-9-]+")
_VERSION = re.compile(r"v\d+(\.\d+)?")
# What RFC 6750 allows in a bearer token, and a little more; never what could end the header.
_TOKEN = re.compile(r"[\x21-\x7e]+")


@final
@frozen
class Endpoint:
    """A Skaha server.

    Attributes:
        root: its URL without version: ``https://ws-uv.canfar.net/skaha``.
        base: the URL of its versioned resources: ``https://ws-uv.canfar.net/skaha/v1``.
        loopback: whether it is on this machine.
    """

    root: str
    base: str
    loopback: bool


def parse_endpoint(url: str | None, version: str) -> Endpoint:
    """Read the URL of a server, with or without the API's version at its end.

    Args:
        url: the URL as the user gave it.
        version: the version to use where *url* names none.

    Raises:
        ConfigurationError: it is no URL of a server; the message says what to do.
    """
    if not url:
        msg = (
            "which server? Give url='https://ws-uv.canfar.net/skaha' and a token, or use "
            "kaleden.local.LocalPlatform, a platform on this machine"
        )
        raise ConfigurationError(msg)

    parts = _split(url)
    path = parts.path.rstrip("/")
    parent, _, last = path.rpartition("/")
    if _VERSION.fullmatch(last):
        path, version = parent, last
    elif not _VERSION.fullmatch(version):
        raise ConfigurationError(f"version is 'v' and a number, such as 'v1', not {version!r}")

    root = f"{parts.scheme}://{parts.netloc}{path}"
    return Endpoint(root, f"{root}/{version}", _is_loopback(parts.hostname or ""))


def check_token(token: object, endpoint: Endpoint) -> None:
    """Make sure that a token can be sent, and will not be sent in the clear.

    Raises:
        ConfigurationError: the token cannot be a header's value, or the server is reached over
            plain http.
    """
    if token is None:
        return

    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        msg = (
            "the token must be a string of printable ASCII characters, with no space or line "
            "break: if it was read from a file, strip() it"
        )
        raise ConfigurationError(msg)

    if endpoint.root.startswith("http:") and not endpoint.loopback:
        msg = (
            "a token is not sent over plain http, where everybody on the way can read it: use "
            f"https for {endpoint.root}"
        )
        raise ConfigurationError(msg)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.port != 0
        usable = usable and _is_host(parts.hostname or "")
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is no URL: {error}") from error

    if not usable or not url.isascii() or re.search(r"[\s\x00-\x1f\\]", url):
        msg = f"{url!r} is no server's URL: it begins with https:// and a host name"
        raise ConfigurationError(msg)

    if parts.username is not None or parts.query or parts.fragment:
        # Not shown: what stands before the @ may be a password.
        msg = "the url must have no user, query or fragment: give the token as token="
        raise ConfigurationError(msg)

    return parts


def _is_host(name: str) -> bool:
    """Tell an address or a name that can be looked up."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return all(_LABEL.fullmatch(label) for label in name.rstrip(".").split("."))
    return True


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
