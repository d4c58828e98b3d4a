"""The server and the login: from arguments, environment, saved configuration, certificate.

Server and login may have different sources, but a login goes only to the server that its own source
names: a saved login to the server that it was saved for, one from the environment to
``CANFAR_URL``, and the certificate in the home directory to CANFAR itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, final

from anyio import to_thread
from attrs import field, frozen

from kaleden._auth._canfar_config import LOG_IN, Saved, SavedServer
from kaleden._auth._certificates import (
    Certificate,
    format_time,
    read_certificate,
    read_current_expiry,
)
from kaleden._auth._discovery import Discovery
from kaleden._auth._endpoint import CANFAR_URL, Endpoint, parse_endpoint
from kaleden._auth._environment import variable
from kaleden._auth._tokens import (
    RefreshingToken,
    StaticToken,
    Token,
    TokenFunction,
    ask_function,
    check_token,
)
from kaleden._errors import ConfigurationError
from kaleden._http import Bearer

NO_SERVER: Final = (
    "which server, and as whom? Log in to CANFAR with `canfar login`; or give url= and token=, "
    f"such as url={CANFAR_URL!r}; or set CANFAR_URL and CANFAR_TOKEN; "
    "or use a platform on this machine: `kaleden serve`, or kaleden.local.LocalPlatform"
)


@final
@frozen
class Server:
    """A server that was found.

    Attributes:
        endpoint: its URLs.
        source: the source that names it.
        saved: its entry in the saved configuration, if that is the source.
        certificate: whether it was chosen because the certificate of the home directory exists.
    """

    endpoint: Endpoint
    source: str
    saved: SavedServer | None = None
    certificate: bool = False


def find_server(discovery: Discovery) -> Server:
    """Find the server.

    Raises:
        ConfigurationError: no source names one, or the value is not usable.
    """
    found = (
        _find_server_in_arguments(discovery)
        or _find_server_in_environment(discovery)
        or _find_saved_server(discovery)
        or _find_server_by_certificate(discovery)
    )
    if found is None:
        half = variable("CANFAR_TOKEN") is not None
        hint = "CANFAR_TOKEN is set, and CANFAR_URL is not: " if half else ""
        raise ConfigurationError(hint + NO_SERVER)

    discovery.record_used(found.source, found.endpoint.base)
    return found


def read_environment_endpoint(version: str) -> Endpoint | None:
    """Read ``CANFAR_URL``, if it is set.

    Raises:
        ConfigurationError: it is not the URL of a server.
    """
    url = variable("CANFAR_URL")
    if url is None:
        return None

    try:
        return parse_endpoint(url, version)
    except ConfigurationError as error:
        raise ConfigurationError(f"CANFAR_URL: {error}") from None


def _find_server_in_arguments(discovery: Discovery) -> Server | None:
    options = discovery.options
    if options.server is not None:
        return _find_named(discovery, options.server)

    if options.url is not None:
        return Server(parse_endpoint(options.url, options.version), "url=")

    if options.client is not None:
        url = str(options.client.base_url)
        if not url:
            raise ConfigurationError("client= has no base_url: give it one, or give url=")
        return Server(parse_endpoint(url, options.version), "base_url of client=")

    discovery.record_skipped("arguments", "no url=, no server=")
    return None


def _find_named(discovery: Discovery, name: str) -> Server:
    if discovery.options.url is not None or discovery.options.client is not None:
        msg = "server= names a saved server and its login: give it without url= and client="
        raise ConfigurationError(msg)

    if discovery.saved is None:
        msg = f"server={name!r} names a saved server, and none is saved: {LOG_IN}"
        raise ConfigurationError(msg)

    return _new_saved_server(discovery, discovery.saved, name)


def _find_server_in_environment(discovery: Discovery) -> Server | None:
    endpoint = read_environment_endpoint(discovery.options.version)
    if endpoint is None:
        discovery.record_skipped("CANFAR_URL", "not set")
        return None

    return Server(endpoint, "CANFAR_URL")


def _find_saved_server(discovery: Discovery) -> Server | None:
    saved = discovery.saved
    if saved is None:
        return None

    if saved.active is None:
        discovery.record_skipped(discovery.format_path(saved.path), "no server is active there")
        return None

    return _new_saved_server(discovery, saved, saved.active)


def _new_saved_server(discovery: Discovery, saved: Saved, name: str) -> Server:
    server = saved.server(name)
    return Server(
        server.endpoint, f"server {name!r} in {discovery.format_path(saved.path)}", server
    )


def _find_server_by_certificate(discovery: Discovery) -> Server | None:
    path = discovery.proxy_certificate
    if path is None:
        return None

    endpoint = parse_endpoint(CANFAR_URL, discovery.options.version)
    return Server(
        endpoint, f"CANFAR itself, since {discovery.format_path(path)} is there", certificate=True
    )


@final
@frozen
class Credential:
    """A login.

    Attributes:
        kind: see `ConnectionInfo.credential`.
        source: where it was found.
        expires: the end of its validity, if that is known.
        bearer: makes the source of tokens, for a login by token.
        certificate: the certificate, for a login by certificate.
        can_change: whether the source may have another login later, as a file or a function.
        read_expiry: reads the end of the validity of the login that the source has now.
    """

    kind: str
    source: str
    expires: datetime | None = None
    bearer: Callable[[], Bearer] | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    can_change: bool = True
    read_expiry: Callable[[], datetime | None] | None = field(default=None, repr=False)


ANONYMOUS: Final = Credential(
    "none", "nothing was found: the server is asked anonymously", can_change=False
)


def find_credential(discovery: Discovery, server: Server) -> Credential:
    """Find the login.

    Raises:
        ConfigurationError: the login that was given or belongs to the server is not usable.
    """
    found = (
        _find_login_in_arguments(discovery, server.endpoint)
        or _find_login_in_environment(discovery, server.endpoint)
        or _find_saved_login(discovery, server)
        or _find_certificate(discovery, server)
        or ANONYMOUS
    )
    if found.kind != ANONYMOUS.kind:
        _check_private(found, server.endpoint, discovery.options.proxy)
        discovery.record_used(found.source, found.kind)
    return found


def _find_login_in_arguments(discovery: Discovery, endpoint: Endpoint) -> Credential | None:
    options = discovery.options
    names = ("client", "auth", "token", "certificate")
    given = [name for name in names if getattr(options, name) is not None]
    if not given:
        discovery.record_skipped("arguments", "no token=, no certificate=")
        return None

    if given[0] in {"client", "auth"}:
        if len(given) > 1:
            msg = f"{given[0]}= says by itself who asks: give it without {given[1]}="
            raise ConfigurationError(msg)
        if options.auth is not None and not hasattr(options.auth, "async_auth_flow"):
            msg = "auth= takes an httpx.Auth, such as httpx.BasicAuth(user, password)"
            raise ConfigurationError(msg)
        return Credential(f"httpx {given[0]}", f"{given[0]}=")

    if options.token is not None:
        if options.certificate is not None:
            discovery.record_skipped("certificate=", "the token wins")
        return _new_given_token(options.token)

    if (obstacle := _find_tls_obstacle(discovery, endpoint)) is not None:
        raise ConfigurationError(f"certificate= is of no use: {obstacle}")

    return _new_certificate(discovery, "certificate=", Path(options.certificate or ""))


def _find_login_in_environment(discovery: Discovery, endpoint: Endpoint) -> Credential | None:
    token, certificate = variable("CANFAR_TOKEN"), variable("CANFAR_CERTIFICATE")
    if token is None and certificate is None:
        discovery.record_skipped("CANFAR_TOKEN, CANFAR_CERTIFICATE", "not set")
        return None

    source = "CANFAR_TOKEN" if token is not None else "CANFAR_CERTIFICATE"
    own = read_environment_endpoint(discovery.options.version)
    if own is not None and not own.is_same_server(endpoint):
        discovery.record_skipped(source, f"it belongs to CANFAR_URL, which is {own.root}")
        return None

    if token is not None:
        if certificate is not None:
            discovery.record_skipped("CANFAR_CERTIFICATE", "the token wins")
        return _new_fixed_token(source, token)

    return _offer_certificate(discovery, endpoint, source, Path(certificate or ""))


def _find_saved_login(discovery: Discovery, server: Server) -> Credential | None:
    needed = server.saved is not None
    saved = discovery.attempt("saved login", lambda: discovery.saved, needed=needed)
    if saved is None:
        return None

    source = discovery.format_path(saved.path)
    known = server.saved or saved.server_at(server.endpoint)
    if known is None:
        discovery.record_skipped(source, "it has no login for this server")
        return None

    identify = partial(_read_identity, discovery, saved, known)
    return discovery.attempt(source, identify, needed=needed)


def _read_identity(discovery: Discovery, saved: Saved, server: SavedServer) -> Credential | None:
    identity = saved.identity(server)
    source = f"login {identity.name!r} in {discovery.format_path(saved.path)}"
    if identity.certificate is not None:
        return _offer_certificate(discovery, server.endpoint, source, identity.certificate)

    token = _read_saved_token(saved, server.name)

    def read_again() -> Token:
        return _read_saved_token(saved.read_again(), server.name)

    return Credential(
        "bearer token",
        source,
        token.expires,
        partial(RefreshingToken, partial(to_thread.run_sync, read_again), token),
        read_expiry=lambda: read_again().expires,
    )


def _read_saved_token(saved: Saved, name: str) -> Token:
    identity = saved.identity(saved.server(name))
    if identity.token is None:
        raise ConfigurationError(f"the saved login {identity.name!r} is no longer one by token")

    token = Token(check_token(identity.token), identity.expires)
    if token.expires is not None and token.expired:
        expired = f"the saved login {identity.name!r} expired at {format_time(token.expires)}"
        raise ConfigurationError(f"{expired}: {LOG_IN}")

    return token


def _find_certificate(discovery: Discovery, server: Server) -> Credential | None:
    if not parse_endpoint(CANFAR_URL, "v1").is_same_server(server.endpoint):
        return None

    path = discovery.proxy_certificate
    if path is None:
        return None

    source = discovery.format_path(path)
    offer = partial(_offer_certificate, discovery, server.endpoint, source, path)
    return discovery.attempt(source, offer, needed=server.certificate)


def _new_given_token(token: str | TokenFunction) -> Credential:
    if callable(token):
        bearer = partial(RefreshingToken, ask_function(token))
        return Credential("bearer tokens of a function", "token=", bearer=bearer)

    return _new_fixed_token("token=", token)


def _new_fixed_token(source: str, token: str) -> Credential:
    try:
        bearer = partial(StaticToken, check_token(token))
        return Credential("bearer token", source, bearer=bearer, can_change=False)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _offer_certificate(
    discovery: Discovery, endpoint: Endpoint, source: str, path: Path
) -> Credential | None:
    """Read a certificate, unless none can be shown to the server."""
    obstacle = _find_tls_obstacle(discovery, endpoint)
    if obstacle is None:
        return _new_certificate(discovery, source, path)

    discovery.record_skipped(source, obstacle)
    return None


def _new_certificate(discovery: Discovery, source: str, path: Path) -> Credential:
    try:
        certificate = read_certificate(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from error

    if certificate.open_to_others:
        discovery.record_skipped(
            discovery.format_path(certificate.path), "warning: others may read its key"
        )
    return Credential(
        "X.509 certificate",
        source,
        certificate.expires,
        certificate=certificate,
        read_expiry=partial(read_current_expiry, certificate),
    )


def _find_tls_obstacle(discovery: Discovery, endpoint: Endpoint) -> str | None:
    """Return why no certificate can be shown to the server, or None."""
    if discovery.options.ssl_context is not None:
        return "ssl_context= is used as it is: load the certificate into it"

    return None if endpoint.encrypted else "certificates are shown over https only"


def _check_private(credential: Credential, endpoint: Endpoint, proxy: str | None) -> None:
    private = endpoint.encrypted or (endpoint.loopback and proxy is None)
    if credential.kind != "httpx client" and not private:
        way_out = ", or give no proxy=: the server is on this machine" if endpoint.loopback else ""
        msg = (
            f"a {credential.kind} is not sent over plain http, where everybody on the way can read "
            f"it: use https for {endpoint.root}{way_out}"
        )
        raise ConfigurationError(msg)
