"""The proxy on the way to a server."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from kaleden._auth._endpoint import Endpoint
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
