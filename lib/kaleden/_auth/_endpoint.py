"""Where a server is."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from attrs import frozen

from kaleden._errors import ConfigurationError

_SCHEMES = {"http", "https", "socks5", "socks5h"}


def environment_proxy(endpoint: Endpoint) -> str | None:
    """Find the proxy that the environment, or the system, names for a server.

    ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` are read as `urllib.request`
    does. A proxy has no business between two programs of one machine.
    """
    from urllib.request import getproxies  # noqa: PLC0415 - slow to load, for who asks over HTTP

    parts = urlsplit(endpoint.root)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is None or endpoint.loopback or _is_passed_by(parts):
        return None

    return check_proxy(
        proxy if "://" in proxy else f"http://{proxy}", "the proxy of the environment"
    )


def _is_passed_by(parts: SplitResult) -> bool:
    """Whether ``NO_PROXY`` names a server; an IPv6 address with brackets or without."""
    from urllib.request import proxy_bypass  # noqa: PLC0415 - as above

    return bool(proxy_bypass(parts.netloc) or proxy_bypass(parts.hostname or ""))


def check_proxy(url: object, what: str) -> str:
    """Return *url* if it is a proxy's.

    Raises:
        ConfigurationError: it is not; the message does not show it, since it may hold a password.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        usable = parts is not None and parts.scheme in _SCHEMES and parts.hostname
        # A password with a / in it would end the host's place early.
        if usable and parts is not None and parts.port != 0 and "@" not in parts.path:
            return str(url)
    except ValueError:
        pass  # As any other that is none.

    msg = f"{what} has no URL of a proxy, such as http://host:3128"
    raise ConfigurationError(msg)


def shown_proxy(url: str) -> str:
    """Write the URL of a proxy without its credentials."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


CANFAR_URL: Final = "https://ws-uv.canfar.net/skaha"
"""Where CANFAR itself is."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LABEL = re.compile(r"(?!xn--$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|xn--[A-Za-z0-9-]+")
_VERSION = re.compile(r"v\d+(\.\d+)*")


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

    @property
    def encrypted(self) -> bool:
        """Whether it is reached over https."""
        return self.root.startswith("https:")

    @property
    def private(self) -> bool:
        """Whether nobody on the way can read what is sent."""
        return self.encrypted or self.loopback

    def is_same_server(self, other: Endpoint) -> bool:
        """Tell whether *other* is this server, of whichever API version."""
        return _place(self) == _place(other)


def parse_endpoint(url: object, version: object) -> Endpoint:
    """Read the URL of a server, with or without the API's version at its end.

    Args:
        url: the URL as the user gave it.
        version: the version to use where *url* names none.

    Raises:
        ConfigurationError: it is no URL of a server; the message says what to do.
    """
    parts = _split(url)
    path = parts.path.rstrip("/")
    parent, _, last = path.rpartition("/")
    if _VERSION.fullmatch(last):
        path, version = parent, last
    elif not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise ConfigurationError(f"version is 'v' and a number, such as 'v1', not {version!r}")

    root = f"{parts.scheme}://{parts.netloc}{path}"
    return Endpoint(root, f"{root}/{version}", _is_loopback(parts.hostname or ""))


def _split(url: object) -> SplitResult:
    if not isinstance(url, str):
        raise ConfigurationError("a url is a string, such as " + repr(CANFAR_URL))

    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise ConfigurationError(f"{_shown(url)} is no URL") from None

    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: what stands before the @ may be a password.
        msg = "the url must have no user, query or fragment: give the token as token="
        raise ConfigurationError(msg)

    usable = parts.scheme in {"http", "https"} and port != 0 and _is_host(host)
    if not usable or not url.isascii() or re.search(r"[\s\x00-\x1f\x7f\\]", url):
        msg = f"{_shown(url)} is no server's URL: it begins with https:// and a host name"
        raise ConfigurationError(msg)

    return parts


def _shown(url: object) -> str:
    """Quote what was given, unless there may be a password or a token in it."""
    return "<not shown>" if re.search(r"[@?#]", str(url)) else repr(url)


def _place(endpoint: Endpoint) -> tuple[str, str | None, int, str]:
    parts = urlsplit(endpoint.root)
    return parts.scheme, parts.hostname, parts.port or _DEFAULT_PORTS[parts.scheme], parts.path


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
