"""The arguments of `AnyioTransport`: TLS contexts and the proxy."""

from __future__ import annotations

import re
import ssl
from functools import partial
from pathlib import Path
from typing import Final, cast, final

import anyio
import anyio.to_thread
import httpx

from kaleden._errors import ConfigurationError
from kaleden._http._h1._pool import DEFAULT_PORTS, Origin
from kaleden._http._h1._proxy import Proxy, format_credentials
from kaleden._http._h1._tls import GivenTls, detect_truncation
from kaleden._http._transport import Tls

# RFC 9110 §5.6.2 and §5.5: a token, and a header value without characters that would end its line.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE: Final = re.compile(rb"[^\x00\r\n]*")


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of *url*.

    Raises:
        httpx.UnsupportedProtocol: it is neither http nor https.
    """
    if url.scheme not in DEFAULT_PORTS:
        kind = f"protocol {url.scheme!r}" if url.scheme else "URL without a protocol"
        raise httpx.UnsupportedProtocol(f"cannot send to a {kind}: http:// or https:// is needed")

    return Origin(url.scheme, url.raw_host.decode("ascii"), url.port or DEFAULT_PORTS[url.scheme])


@final
class LazyTls:
    """A context that is made once, when the first connection needs it."""

    def __init__(
        self,
        verify: ssl.SSLContext | str | bool,
        cert: str | tuple[str, str] | None,
        trust_env: bool,
    ) -> None:
        self._new_context = partial(new_context, verify, cert, trust_env)
        self._lock = anyio.Lock()
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context; see `Tls.context`."""
        async with self._lock:
            if self._context is None:
                # In a thread: to read all authorities takes tens of milliseconds.
                self._context = await anyio.to_thread.run_sync(self._new_context)
            return self._context


def check_tls(verify: object, cert: object) -> None:
    """Check the types of *verify* and *cert*.

    Raises:
        ConfigurationError: one cannot be used.
    """
    if not isinstance(verify, ssl.SSLContext | str | bool):
        msg = f"verify= takes an ssl.SSLContext, a path as a string, or a bool, not {verify!r}"
        raise ConfigurationError(msg)

    files = cast("tuple[object, ...]", cert) if isinstance(cert, tuple) else (cert,)
    if cert is not None and not all(isinstance(file, str) for file in files):
        msg = "cert= takes the path of a PEM file as a string, or two of them: (chain, key)"
        raise ConfigurationError(msg)


def new_context(
    verify: ssl.SSLContext | str | bool, cert: str | tuple[str, str] | None, trust_env: bool
) -> ssl.SSLContext:
    """Return a context for the arguments of an `AnyioTransport`."""
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif isinstance(verify, str):
        # httpx accepts it too, but has deprecated it.
        file, folder = (None, verify) if Path(verify).is_dir() else (verify, None)
        context = detect_truncation(ssl.create_default_context(cafile=file, capath=folder))
        context.set_alpn_protocols(["http/1.1"])
    else:
        context = detect_truncation(httpx.create_ssl_context(verify=verify, trust_env=trust_env))
        context.set_alpn_protocols(["http/1.1"])
    if cert is not None:
        context.load_cert_chain(*((cert,) if isinstance(cert, str) else cert))
    return context


def new_proxy(given: httpx.Proxy | httpx.URL | str, trust_env: bool) -> Proxy:
    """Return the proxy for an argument of httpx's kind.

    Raises:
        ConfigurationError: it cannot be used; the message does not show it.
    """
    # The messages do not show the URL, since it may hold a password, and do not refer to httpx's
    # errors, which quote it: the exception is raised outside the ``except`` blocks.
    parsed, problem = None, ""
    try:
        parsed = _parse_proxy(given)
    except httpx.UnsupportedProtocol:
        problem = (
            "proxy= takes an http or https proxy; for SOCKS mount httpx's own transport, "
            'httpx.AsyncHTTPTransport(proxy="socks5://HOST:PORT"), with httpx[socks] installed'
        )
    except (httpx.InvalidURL, TypeError, ValueError):
        problem = "proxy= takes the URL of a proxy, such as http://HOST:3128, or an httpx.Proxy"
    if parsed is None:
        raise ConfigurationError(problem)

    proxy, origin, headers = parsed
    for name, value in proxy.headers.raw:
        if not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
            msg = f"header {name!r} of the proxy has characters that would end its line"
            raise ConfigurationError(msg)
        headers += f"{name.decode('latin-1')}: {value.decode('latin-1')}\r\n"
    tls: Tls | None = None
    if origin.scheme == "https":
        context = proxy.ssl_context
        tls = LazyTls(True, None, trust_env) if context is None else GivenTls(context)
    url = proxy.url.copy_with(path="/", query=None, fragment=None)
    return Proxy(str(url).rstrip("/"), origin, headers, tls)


def _parse_proxy(given: httpx.Proxy | httpx.URL | str) -> tuple[httpx.Proxy, Origin, str]:
    """Return the proxy, its origin, and the header line for its user and password."""
    proxy = given if isinstance(given, httpx.Proxy) else httpx.Proxy(given)
    origin = origin_of(proxy.url)
    if not origin.host:
        raise ValueError("no host")

    return proxy, origin, "" if proxy.raw_auth is None else format_credentials(*proxy.raw_auth)
