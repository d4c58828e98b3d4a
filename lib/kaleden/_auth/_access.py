"""Access to a server: its endpoint, login, proxy and transport, found before any request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, cast, final

from attrs import evolve, field, frozen

from kaleden._auth._discovery import ConnectionInfo, Discovery
from kaleden._auth._endpoint import Endpoint, find_environment_proxy, parse_proxy
from kaleden._auth._options import ClientOptions
from kaleden._auth._resolve import ANONYMOUS, Credential, Server, find_credential, find_server
from kaleden._auth._tls import OwnTls
from kaleden._errors import ConfigurationError, InvalidRequest
from kaleden._http import (
    MAX_BODY,
    CallerTransport,
    DirectTransport,
    GivenTls,
    Proxy,
    Transport,
    library_of,
)
from kaleden._wire import build_registry_header

if TYPE_CHECKING:
    from kaleden._http._httpx_adapter import HttpxTransport


EXPLAINED_BY: Final = "describe()"
"""The method that messages refer to: it returns where a login was found."""


@final
@frozen
class Registry:
    """Credentials for private images.

    Attributes:
        user: the user name.
        header: the header of each create.
    """

    user: str
    header: tuple[str, str] = field(repr=False)


@final
@frozen
class ServerAccess:
    """The server, the login and the way to them.

    Attributes:
        registry: credentials for private images, if there are any.
        login: the public description.
    """

    registry: Registry | None
    login: ConnectionInfo
    _options: ClientOptions
    _endpoint: Endpoint | None = None
    _credential: Credential = ANONYMOUS
    _proxy: Proxy | None = None

    @property
    def where(self) -> str:
        """The server's URL, or a name for a transport of the caller's own."""
        return self.login.url or "own transport"

    @property
    def refusal(self) -> str:
        """A sentence for messages about a refused login; nothing secret."""
        login = self.login
        if self._endpoint is None:
            return ""
        if login.credential == ANONYMOUS.kind:
            return f"no login was sent ({login.credential_from}): see {EXPLAINED_BY}"

        return f"the {login.credential} of {login.credential_from} was refused: see {EXPLAINED_BY}"

    @property
    def login_can_change(self) -> bool:
        """Whether a login that the server refuses may be accepted later."""
        return self._endpoint is None or self._credential.can_change

    def describe(self) -> ConnectionInfo:
        """Return the public description, with the end of the login that its source has now."""
        read = self._credential.read_expiry
        if read is None:
            return self.login

        try:
            return evolve(self.login, expires=read())
        except ConfigurationError:
            return self.login

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Transport]:
        """Open the transport to the server.

        Raises:
            ConfigurationError: the certificate can no longer be used.
        """
        options, endpoint = self._options, self._endpoint
        limits = options.limits
        max_body = limits.max_body or MAX_BODY
        if endpoint is None or options.client is not None:
            yield self._given_transport(max_body)
            return

        tls = self._tls(endpoint)
        if isinstance(tls, OwnTls):
            await tls.prepare()
        proxy = await self._open_proxy()
        new_transport: Callable[..., DirectTransport | HttpxTransport]
        if options.auth is None:
            bearer = self._credential.bearer
            new_transport = partial(DirectTransport, bearer=None if bearer is None else bearer())
        else:
            # httpx takes long to import.
            from kaleden._http._httpx_adapter import HttpxTransport  # noqa: PLC0415

            new_transport = partial(HttpxTransport, auth=options.auth)
        async with new_transport(
            endpoint.root,
            endpoint.base,
            tls=tls,
            proxy=proxy,
            connections=limits.concurrency,
            max_body=max_body,
        ) as transport:
            yield transport

    def _given_transport(self, max_body: int) -> Transport:
        client, endpoint = self._options.client, self._endpoint
        if client is not None and endpoint is not None:
            return CallerTransport(client, endpoint.root, endpoint.base, max_body)

        assert self._options.transport is not None  # noqa: S101  # otherwise there is an endpoint
        return self._options.transport

    async def _open_proxy(self) -> Proxy | None:
        """Return the proxy, with TLS of its own if it needs it; it never gets a certificate."""
        if self._proxy is None or self._proxy.origin.scheme == "http":
            return self._proxy

        tls = OwnTls(None)
        await tls.prepare()
        return evolve(self._proxy, tls=tls)

    def _tls(self, endpoint: Endpoint) -> GivenTls | OwnTls | None:
        if not endpoint.encrypted:
            return None

        given = self._options.ssl_context
        return OwnTls(self._credential.certificate) if given is None else GivenTls(given)


def find_server_access(options: ClientOptions) -> ServerAccess:
    """Find the server and the login in arguments, environment and files.

    Raises:
        ConfigurationError: something is missing or not usable; the message says what to do.
    """
    if options.transport is not None:
        return _find_transport_access(options)

    if options.client is not None:
        library_of(options.client)  # Before its base_url is read.
    discovery = Discovery(options)
    server = find_server(discovery)
    credential = find_credential(discovery, server)
    registry = _find_registry(discovery, server)
    proxy = _find_proxy(options, server.endpoint)
    login = ConnectionInfo(
        server.endpoint.base,
        server.source,
        credential.kind,
        _describe_source(options, credential),
        credential.expires,
        None if registry is None else registry.user,
        None if proxy is None else proxy.url,
        options.limits.concurrency,
        options.limits.timeout,
        options.limits.create_concurrency,
        options.limits.create_timeout,
        tuple(discovery.steps),
    )
    return ServerAccess(registry, login, options, server.endpoint, credential, proxy)


def _describe_source(options: ClientOptions, credential: Credential) -> str:
    if credential is ANONYMOUS and options.ssl_context is not None:
        return f"{credential.source}, unless ssl_context= shows a certificate"

    return credential.source


def _find_transport_access(options: ClientOptions) -> ServerAccess:
    """Return the access through the caller's transport; only the registry is an option of it."""
    names = ("url", "token", "server", "certificate", "auth", "client", "proxy", "ssl_context")
    given = {name: getattr(options, name) for name in names} | {"max_body": options.limits.max_body}
    for name, value in given.items():
        if value is not None:
            msg = f"a transport of your own takes no {name}=: give it to the transport"
            raise ConfigurationError(msg)

    registry = None
    if options.registry is not None:
        registry = read_registry(options.registry, "registry=")
    source = "transport="
    login = ConnectionInfo(
        None,
        source,
        "own transport",
        source,
        None,
        None if registry is None else registry.user,
        None,
        options.limits.concurrency,
        options.limits.timeout,
        options.limits.create_concurrency,
        options.limits.create_timeout,
    )
    return ServerAccess(registry, login, options)


def read_registry(pair: object, source: str) -> Registry:
    """Read the user and secret for private images.

    Raises:
        ConfigurationError: they are not usable; the message does not show the secret.
    """
    try:
        user, secret = cast("tuple[str, str]", pair)
        return Registry(user, build_registry_header(user, secret))
    except InvalidRequest as error:
        raise ConfigurationError(f"{source}: {error}") from None
    except (TypeError, ValueError, AttributeError):
        raise ConfigurationError(f"{source} takes a pair of strings: (user, secret)") from None


def _find_registry(discovery: Discovery, server: Server) -> Registry | None:
    if discovery.options.registry is not None:
        return read_registry(discovery.options.registry, "registry=")

    saved = discovery.saved if server.saved is not None else None
    if saved is None:
        return None

    source = f"registry in {discovery.format_path(saved.path)}"

    def read() -> Registry | None:
        pair = saved.registry()
        return None if pair is None else read_registry(pair, source)

    registry = discovery.attempt(source, read, needed=False)
    if registry is not None:
        discovery.record_used(source, f"user {registry.user}")
    return registry


def _find_proxy(options: ClientOptions, endpoint: Endpoint) -> Proxy | None:
    if options.client is not None:
        if options.proxy is not None or options.ssl_context is not None:
            msg = "client= makes its own connections: give it without proxy= and ssl_context="
            raise ConfigurationError(msg)
        return None

    if options.proxy is None:
        return find_environment_proxy(endpoint)

    return parse_proxy(options.proxy, "proxy=")
