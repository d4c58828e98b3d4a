"""Servers and proxies: their URLs, and the proxy that the environment names."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, TypeAlias, final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from attrs import frozen

from kaleden._errors import ConfigurationError
from kaleden._http import DEFAULT_PORTS, Origin, Proxy, format_credentials

CANFAR_URL: Final = "https://ws-uv.canfar.net/skaha"
"""The URL of CANFAR itself."""

_LABEL = re.compile(r"(?!xn--$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?|xn--[A-Za-z0-9-]+")
_VERSION = re.compile(r"v\d+(\.\d+)*")
_BAD_CHARACTERS: Final = re.compile(r"[\s\x00-\x1f\x7f\\]")
# `urlsplit` would drop some of them silently, from a password too.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


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

    def is_same_server(self, other: Endpoint) -> bool:
        """Return whether *other* is the same server; the API version may differ."""
        return _address(self) == _address(other)


def parse_endpoint(url: object, version: object) -> Endpoint:
    """Parse the URL of a server; *version* is the API version if none is at its end.

    Raises:
        ConfigurationError: it is not the URL of a server; the message says what to do.
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
        raise ConfigurationError(f"{_quote(url)} is not a URL") from None

    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: there may be a password before the @.
        msg = "the url must have no user, query or fragment: give the token as token="
        raise ConfigurationError(msg)

    usable = parts.scheme in {"http", "https"} and port != 0 and _is_host(host)
    if not usable or not url.isascii() or _BAD_CHARACTERS.search(url):
        msg = f"{_quote(url)} is no server's URL: it begins with https:// and a host name"
        raise ConfigurationError(msg)

    return parts


def _quote(url: object) -> str:
    """Quote a URL, unless there may be a password or a token in it."""
    return "<not shown>" if re.search(r"[@?#]", str(url)) else repr(url)


def _address(endpoint: Endpoint) -> tuple[str, str | None, int, str]:
    parts = urlsplit(endpoint.root)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS[parts.scheme], parts.path


def _is_host(name: str) -> bool:
    """Return whether *name* is an address or a name that can be looked up."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return all(_LABEL.fullmatch(label) for label in name.rstrip(".").split("."))
    return True


def _is_loopback(host: str) -> bool:
    network = _read_network(host)
    if network is not None:
        return network.network_address.is_loopback

    # RFC 6761 §6.3: names below localhost are loopback addresses too.
    return f".{host.lower().rstrip('.')}".endswith(".localhost")


_SOCKS: Final = re.compile(r"socks(4a?|5h?)?")


def parse_proxy(url: object, source: str) -> Proxy:
    """Parse the URL of an http or https proxy. Its path is ignored, as everywhere.

    Raises:
        ConfigurationError: it is not usable. The message does not show it, since it may hold a
            password.
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) and not _CONTROL.search(url) else None
        port = None if parts is None else parts.port
    except ValueError:
        parts = port = None
    if parts is not None and _SOCKS.fullmatch(parts.scheme):
        raise ConfigurationError(_describe_socks(parts.scheme, source))

    # A password with a / ? or # in it would end the authority early.
    rest = "" if parts is None else parts.path + parts.query + parts.fragment
    host = None if parts is None else parts.hostname
    if parts is None or not host or parts.scheme not in DEFAULT_PORTS or port == 0 or "@" in rest:
        raise ConfigurationError(f"{source} has no URL of a proxy, such as http://host:3128")

    if not _is_host(host):
        raise ConfigurationError(f"{source} has no valid host name in its URL")

    # RFC 6874 §2: the % before a zone id is encoded.
    host = host.replace("%25", "%", 1)
    origin = Origin(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme])
    return Proxy(
        f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", origin, _credentials(parts, source)
    )


def _credentials(parts: SplitResult, source: str) -> str:
    if not parts.username and not parts.password:
        return ""

    user = _decode_userinfo(parts.username)
    if b":" in user:
        # RFC 7617 §2.
        raise ConfigurationError(f"{source} has a user with a colon in it, which cannot be sent")

    password = _decode_userinfo(parts.password)
    if _CONTROL.search((user + password).decode("latin-1")):
        # RFC 7617 §2.
        raise ConfigurationError(f"{source} has a control character in its user or password")

    return format_credentials(user, password)


def _decode_userinfo(text: str | None) -> bytes:
    # A byte of the environment that is not UTF-8 is sent as it is (PEP 383).
    return unquote_to_bytes((text or "").encode("utf-8", "surrogateescape"))


def _describe_socks(scheme: str, source: str) -> str:
    known = scheme in {"socks5", "socks5h"}
    hint = "" if known else f" httpx knows no {scheme}://: write socks5:// if the proxy speaks it."
    return (
        f"{source} names a SOCKS proxy, which only a client of your own can use: install "
        "httpx[socks] and give "
        f'client=httpx.AsyncClient(proxy="{scheme if known else "socks5"}://HOST:PORT"), '
        "with the login in its auth= or headers=; or, if the server can be reached without a "
        f"proxy, name it in NO_PROXY.{hint}"
    )


def find_environment_proxy(endpoint: Endpoint) -> Proxy | None:
    """Find the proxy that the environment, or the system, names for a server.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` are read as `urllib.request` does: lower case
    before upper case. A server on this machine has no proxy, nor has one that ``NO_PROXY`` names.

    Raises:
        ConfigurationError: a proxy is named, and its URL is not usable.
    """
    # Slow to load, and not needed for every transport.
    from urllib.request import getproxies, getproxies_environment, proxy_bypass  # noqa: PLC0415

    environment = getproxies_environment()
    proxies = environment or getproxies()
    parts = urlsplit(endpoint.root)
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    url = (proxies.get(name) or "").strip()
    if not url or endpoint.loopback:
        return None

    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    if environment:
        bypassed = is_bypassed(environment.get("no", ""), host, port)
    else:
        bypassed = bool(proxy_bypass(parts.netloc))
    if bypassed:
        return None

    kind = f"environment ({name.upper()}_PROXY)" if environment else "system"
    return parse_proxy(url if "://" in url else f"http://{url}", f"the proxy of the {kind}")


_PORT: Final = re.compile(r"(?:\[([^]]*)\]|([^:\[\]]*)):([0-9]{1,5})")

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_bypassed(no_proxy: str, host: str, port: int) -> bool:
    """Return whether a value of ``NO_PROXY`` names a server.

    It is a list with commas or spaces between its entries. An entry is ``*`` for all servers; an
    address or a network (``10.128.0.0/16``), for servers whose URL has an address; or a name. A
    name, also with a leading dot, means that host and all below it, and ``*.site.org`` only
    for those below. With ``:port`` an entry is for that port only. Zone ids are ignored. *host* has
    no brackets.
    """
    host = host.lower().rstrip(".")
    for entry in re.split(r"[\s,]+", no_proxy.lower()):
        pattern = entry
        if match := _PORT.fullmatch(entry):
            if int(match[3]) != port:
                continue
            pattern = match[1] or match[2] or ""
        if pattern and _matches(pattern, host):
            return True
    return False


def _matches(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True

    address = _read_network(host)
    if address is not None:
        network = _read_network(pattern)
        return network is not None and address.network_address in network

    name = pattern.lstrip("*.").rstrip(".")
    return bool(name) and (
        host.endswith(f".{name}") or (host == name and not pattern.startswith("*"))
    )


def _read_network(text: str) -> _Network | None:
    """Read an address or a network; one that is mapped from IPv4 as that (RFC 4291 §2.5.5.2)."""
    try:
        network = ipaddress.ip_network(re.sub(r"%[^/]*|[\[\]]", "", text), strict=False)
    except ValueError:
        return None

    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
