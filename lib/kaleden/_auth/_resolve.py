"""Who asks: as the arguments, the environment, a saved login or a certificate say.

It may be found in another place than the server, but goes to nobody whom its own place does not
name: what is saved goes to the server that it was saved for, what is in the environment not past
``CANFAR_URL``, and the certificate at its usual place to CANFAR itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final, final

from attrs import field, frozen

from kaleden._auth._canfar_config import LOG_IN, Saved, SavedServer
from kaleden._auth._certificates import (
    Certificate,
    format_time,
    read_certificate,
)
from kaleden._auth._discovery import Discovery
from kaleden._auth._endpoint import CANFAR_URL, Endpoint, parse_endpoint
from kaleden._auth._environment import variable
from kaleden._auth._options import ClientOptions
from kaleden._auth._tokens import (
    RefreshingToken,
    StaticToken,
    Token,
    TokenFunction,
    asks_function,
    asks_in_thread,
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
        endpoint: where it is.
        place: where it was found.
        saved: what is saved of it, if that is where it was found.
        certificate: whether it was chosen for the sake of the certificate at its usual place.
    """

    endpoint: Endpoint
    place: str
    saved: SavedServer | None = None
    certificate: bool = False


def find_server(places: Discovery) -> Server:
    """Find the server.

    Raises:
        ConfigurationError: nothing names one, or what does cannot be used.
    """
    found = (
        _server_of_arguments(places)
        or _server_of_environment(places)
        or _server_of_saved(places)
        or _server_of_certificate(places)
    )
    if found is None:
        half = variable("CANFAR_TOKEN") is not None
        hint = "CANFAR_TOKEN is set, and CANFAR_URL is not: " if half else ""
        raise ConfigurationError(hint + NO_SERVER)

    places.took(found.place, found.endpoint.base)
    return found


def environment_endpoint(version: str) -> Endpoint | None:
    """Read ``CANFAR_URL``, if it is set.

    Raises:
        ConfigurationError: it is no server's URL.
    """
    url = variable("CANFAR_URL")
    if url is None:
        return None

    try:
        return parse_endpoint(url, version)
    except ConfigurationError as error:
        raise ConfigurationError(f"CANFAR_URL: {error}") from None


def _server_of_arguments(places: Discovery) -> Server | None:
    options = places.options
    if options.server is not None:
        return _named(places, options.server)

    if options.url is not None:
        return Server(parse_endpoint(options.url, options.version), "url=")

    if options.client is not None:
        url = str(options.client.base_url)
        if not url:
            raise ConfigurationError("client= has no base_url: give it one, or give url=")
        return Server(parse_endpoint(url, options.version), "base_url of client=")

    places.passed_over("arguments", "no url=, no server=")
    return None


def _named(places: Discovery, name: str) -> Server:
    if places.options.url is not None or places.options.client is not None:
        msg = "server= names a saved server and its login: give it without url= and client="
        raise ConfigurationError(msg)

    if places.saved is None:
        msg = f"server={name!r} names a saved server, and none is saved: {LOG_IN}"
        raise ConfigurationError(msg)

    return _saved(places, places.saved, name)


def _server_of_environment(places: Discovery) -> Server | None:
    endpoint = environment_endpoint(places.options.version)
    if endpoint is None:
        places.passed_over("CANFAR_URL", "not set")
        return None

    return Server(endpoint, "CANFAR_URL")


def _server_of_saved(places: Discovery) -> Server | None:
    saved = places.saved
    if saved is None:
        return None

    if saved.active is None:
        places.passed_over(places.named(saved.path), "no server is active there")
        return None

    return _saved(places, saved, saved.active)


def _saved(places: Discovery, saved: Saved, name: str) -> Server:
    server = saved.server(name)
    return Server(server.endpoint, f"server {name!r} in {places.named(saved.path)}", server)


def _server_of_certificate(places: Discovery) -> Server | None:
    path = places.proxy_certificate
    if path is None:
        return None

    endpoint = parse_endpoint(CANFAR_URL, places.options.version)
    return Server(endpoint, f"CANFAR itself, since {places.named(path)} is there", certificate=True)


@final
@frozen
class Credential:
    """Who asks.

    Attributes:
        kind: as of `ConnectionInfo.credential`.
        place: where it was found.
        expires: until when it is valid, if that is known.
        bearer: makes what tells the tokens, for a credential of that kind.
        certificate: the certificate, for one of that kind.
    """

    kind: str
    place: str
    expires: datetime | None = None
    bearer: Callable[[], Bearer] | None = field(default=None, repr=False)
    certificate: Certificate | None = None


ANONYMOUS: Final = Credential("none", "nothing was found: the server is asked anonymously")


def find_credential(places: Discovery, server: Server) -> Credential:
    """Find out who asks.

    Raises:
        ConfigurationError: what was given, or what belongs to the server, cannot be used.
    """
    found = _login_of_arguments(places, server.endpoint)
    if found is None:
        found = (
            _login_of_environment(places, server.endpoint)
            or _login_of_saved(places, server)
            or _login_of_certificate(places, server)
            or ANONYMOUS
        )
    if found.kind != ANONYMOUS.kind:
        _check_private(found, server.endpoint)
        places.took(found.place, found.kind)
    return found


def _login_of_arguments(places: Discovery, endpoint: Endpoint) -> Credential | None:
    options = places.options
    names = ("client", "auth", "token", "certificate")
    given = [name for name in names if getattr(options, name) is not None]
    if not given:
        places.passed_over("arguments", "no token=, no certificate=")
        return None

    if given[0] in {"client", "auth"}:
        if len(given) > 1:
            msg = f"{given[0]}= says by itself who asks: give it without {given[1]}="
            raise ConfigurationError(msg)
        _check_auth(options)
        return Credential(f"httpx {given[0]}", f"{given[0]}=")

    if options.token is not None:
        if options.certificate is not None:
            places.passed_over("certificate=", "the token wins")
        return _given_token(options.token)

    if (obstacle := _tls_obstacle(places, endpoint)) is not None:
        raise ConfigurationError(f"certificate= is of no use: {obstacle}")

    return _certified(places, "certificate=", Path(options.certificate or ""))


def _check_auth(options: ClientOptions) -> None:
    if options.auth is not None and not hasattr(options.auth, "async_auth_flow"):
        msg = "auth= takes an httpx.Auth, such as httpx.BasicAuth(user, password)"
        raise ConfigurationError(msg)


def _login_of_environment(places: Discovery, endpoint: Endpoint) -> Credential | None:
    token, certificate = variable("CANFAR_TOKEN"), variable("CANFAR_CERTIFICATE")
    if token is None and certificate is None:
        places.passed_over("CANFAR_TOKEN, CANFAR_CERTIFICATE", "not set")
        return None

    place = "CANFAR_TOKEN" if token is not None else "CANFAR_CERTIFICATE"
    own = environment_endpoint(places.options.version)
    if own is not None and not own.is_same_server(endpoint):
        places.passed_over(place, f"it belongs to CANFAR_URL, which is {own.root}")
        return None

    if token is not None:
        if certificate is not None:
            places.passed_over("CANFAR_CERTIFICATE", "the token wins")
        return _fixed_token(place, token)

    obstacle = _tls_obstacle(places, endpoint)
    if obstacle is not None:
        places.passed_over(place, obstacle)
        return None

    return _certified(places, place, Path(certificate or ""))


def _login_of_saved(places: Discovery, server: Server) -> Credential | None:
    needed = server.saved is not None
    saved = places.attempt("saved login", lambda: places.saved, needed=needed)
    if saved is None:
        return None

    place = places.named(saved.path)
    known = server.saved or saved.server_at(server.endpoint)
    if known is None:
        places.passed_over(place, "it has no login for this server")
        return None

    identify = partial(_identified, places, saved, known)
    return places.attempt(place, identify, needed=needed)


def _identified(places: Discovery, saved: Saved, server: SavedServer) -> Credential | None:
    identity = saved.identity(server)
    place = f"login {identity.name!r} in {places.named(saved.path)}"
    if identity.certificate is not None:
        obstacle = _tls_obstacle(places, server.endpoint)
        if obstacle is None:
            return _certified(places, place, identity.certificate)

        places.passed_over(place, obstacle)
        return None

    token = _saved_token(saved, server.name)
    ask = asks_in_thread(lambda: _saved_token(saved.read_again(), server.name))
    return Credential("bearer token", place, token.expires, partial(RefreshingToken, ask, token))


def _saved_token(saved: Saved, name: str) -> Token:
    identity = saved.identity(saved.server(name))
    if identity.token is None:
        raise ConfigurationError(f"the saved login {identity.name!r} is no longer one by token")

    token = Token(check_token(identity.token), identity.expires)
    if token.expires is not None and token.expired:
        expired = f"the saved login {identity.name!r} expired at {format_time(token.expires)}"
        raise ConfigurationError(f"{expired}: {LOG_IN}")

    return token


def _login_of_certificate(places: Discovery, server: Server) -> Credential | None:
    if not parse_endpoint(CANFAR_URL, "v1").is_same_server(server.endpoint):
        return None

    path = places.proxy_certificate
    if path is None:
        return None

    place = places.named(path)
    obstacle = _tls_obstacle(places, server.endpoint)
    if obstacle is not None:
        places.passed_over(place, obstacle)
        return None

    certify = partial(_certified, places, place, path)
    return places.attempt(place, certify, needed=server.certificate)


def _given_token(token: str | TokenFunction) -> Credential:
    if callable(token):
        bearer = partial(RefreshingToken, asks_function(token))
        return Credential("bearer tokens of a function", "token=", bearer=bearer)

    return _fixed_token("token=", token)


def _fixed_token(place: str, token: str) -> Credential:
    try:
        return Credential("bearer token", place, bearer=partial(StaticToken, check_token(token)))
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from None


def _certified(places: Discovery, place: str, path: Path) -> Credential:
    try:
        certificate = read_certificate(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"{place}: {error}") from error

    if certificate.open_to_others:
        places.passed_over(places.named(certificate.path), "warning: others may read its key")
    return Credential("X.509 certificate", place, certificate.expires, certificate=certificate)


def _tls_obstacle(places: Discovery, endpoint: Endpoint) -> str | None:
    """Say why no certificate can be shown to the server."""
    if places.options.ssl_context is not None:
        return "ssl_context= is used as it is: load the certificate into it"

    return None if endpoint.encrypted else "certificates are shown over https only"


def _check_private(credential: Credential, endpoint: Endpoint) -> None:
    if credential.kind != "httpx client" and not endpoint.private:
        msg = (
            f"a {credential.kind} is not sent over plain http, where everybody on the way can read "
            f"it: use https for {endpoint.root}"
        )
        raise ConfigurationError(msg)
