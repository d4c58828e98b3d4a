"""Which server: that of the arguments, of the environment, of a saved login, or CANFAR itself."""

from __future__ import annotations

from typing import Final, final

from attrs import frozen

from kaleden._auth._canfar_config import LOG_IN, Saved, SavedServer
from kaleden._auth._discovery import Places
from kaleden._auth._endpoint import CANFAR_URL, Endpoint, parse_endpoint
from kaleden._auth._environment import variable
from kaleden._errors import ConfigurationError

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


def find_server(places: Places) -> Server:
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


def _server_of_arguments(places: Places) -> Server | None:
    wanted = places.wanted
    if wanted.server is not None:
        return _named(places, wanted.server)

    if wanted.url is not None:
        return Server(parse_endpoint(wanted.url, wanted.version), "url=")

    if wanted.client is not None:
        url = str(wanted.client.base_url)
        if not url:
            raise ConfigurationError("client= has no base_url: give it one, or give url=")
        return Server(parse_endpoint(url, wanted.version), "base_url of client=")

    places.passed_over("arguments", "no url=, no server=")
    return None


def _named(places: Places, name: str) -> Server:
    if places.wanted.url is not None or places.wanted.client is not None:
        msg = "server= names a saved server and its login: give it without url= and client="
        raise ConfigurationError(msg)

    if places.saved is None:
        msg = f"server={name!r} names a saved server, and none is saved: {LOG_IN}"
        raise ConfigurationError(msg)

    return _saved(places, places.saved, name)


def _server_of_environment(places: Places) -> Server | None:
    endpoint = environment_endpoint(places.wanted.version)
    if endpoint is None:
        places.passed_over("CANFAR_URL", "not set")
        return None

    return Server(endpoint, "CANFAR_URL")


def _server_of_saved(places: Places) -> Server | None:
    saved = places.saved
    if saved is None:
        return None

    if saved.active is None:
        places.passed_over(places.named(saved.path), "no server is active there")
        return None

    return _saved(places, saved, saved.active)


def _saved(places: Places, saved: Saved, name: str) -> Server:
    server = saved.server(name)
    return Server(server.endpoint, f"server {name!r} in {places.named(saved.path)}", server)


def _server_of_certificate(places: Places) -> Server | None:
    path = places.proxy_certificate
    if path is None:
        return None

    endpoint = parse_endpoint(CANFAR_URL, places.wanted.version)
    return Server(endpoint, f"CANFAR itself, since {places.named(path)} is there", certificate=True)
