"""The login that the ``canfar`` client has saved, as far as it can be used without that client.

Three shapes of its file are about. Versions 1 and 2 have servers and identities apart::

    version: 2
    active: {authentication: <idp>, server: <name>}
    authentication: {<idp>: {mode: x509, path: <pem>}
                  or <idp>: {mode: oidc, token: {access: <token>}, expiry: {access: <seconds>}}}
    servers: {<name>: {idp: <idp>, url: <url>, version: v1}}
    registry: {url: <url>, username: <user>, secret: <secret>}

The one before had no version, and contexts, each an identity with its one server in it::

    active: <name>
    contexts: {<name>: {mode: ..., server: {name: <name>, url: <url>, version: v1}}}

Only what is asked for is read, so a damaged part costs nothing but itself.
"""

from __future__ import annotations

import reprlib
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast, final

from attrs import field, frozen

from kaleden._auth._endpoint import Endpoint, parse_endpoint
from kaleden._auth._environment import exists, expand_home
from kaleden._errors import ConfigurationError

LOG_IN: Final = "run `canfar login`"
"""What to do about a login that cannot be used."""

PLACES: Final = (".canfar/config.yaml", ".skaha/config.yaml")
"""Where the file is, under the home directory: the first that exists counts."""

PROXY_CERTIFICATE: Final = ".ssl/cadcproxy.pem"
"""Where ``cadc-get-cert`` and ``canfar login`` put the certificate, under the home directory."""

_VERSIONS: Final = (1, 2)
_MAX_SIZE: Final = 2**16
"""Bytes of a file; real ones are some thousand."""

Tree = Mapping[str, Any]


@final
@frozen
class Identity:
    """Who somebody is to the servers of one identity provider.

    Attributes:
        name: the provider's, or that of the context.
        certificate: where the X.509 certificate is, for one of that kind.
        token: the OIDC access token, for one of that kind.
        expires: until when the token is valid, if that is known.
    """

    name: str
    certificate: Path | None = None
    token: str | None = field(default=None, repr=False)
    expires: datetime | None = None


@final
@frozen
class SavedServer:
    """A server of the file.

    Attributes:
        name: what it is called there.
        endpoint: where it is.
        identity: the name of the identity that belongs to it, if any.
    """

    name: str
    endpoint: Endpoint
    identity: str | None


@final
@frozen
class Saved:
    """What is in the file.

    Attributes:
        path: where the file is.
        active: the name of the server in use, if one is.
    """

    path: Path
    active: str | None
    _home: Path
    _servers: Tree = field(repr=False)
    _identities: Tree = field(repr=False)
    _active_identity: str | None
    _registry: object = field(repr=False)

    @property
    def names(self) -> list[str]:
        """The names of the servers."""
        return sorted(map(str, self._servers))

    def server(self, name: str) -> SavedServer:
        """Read one server.

        Raises:
            ConfigurationError: there is none of that name, or it cannot be read.
        """
        if name not in self._servers:
            known = f"it has {', '.join(self.names)}" if self._servers else "it has none"
            msg = f"there is no server {name!r} in {self.path}: {known}"
            raise ConfigurationError(msg)

        found = _tree(self._servers[name], f"servers.{name}", self.path)
        url = _text(found.get("url"))
        if url is None:
            raise ConfigurationError(f"server {name!r} in {self.path} has no url: {LOG_IN}")

        identity = self._active_identity if name == self.active else None
        endpoint = parse_endpoint(url, _text(found.get("version")) or "v1")
        return SavedServer(name, endpoint, identity or _text(found.get("idp")))

    def server_at(self, endpoint: Endpoint) -> SavedServer | None:
        """Find the server that is at an endpoint; the active one before others."""
        for name in sorted(self._servers, key=lambda name: name != self.active):
            try:
                server = self.server(name)
            except ConfigurationError:
                continue  # It is not this one, as far as anybody can tell.
            if server.endpoint.is_same_server(endpoint):
                return server
        return None

    def identity(self, server: SavedServer) -> Identity:
        """Read the identity that belongs to a server.

        Raises:
            ConfigurationError: there is none, or it cannot be used.
        """
        name = server.identity
        if name is None or name not in self._identities:
            msg = f"{self.path} has no login for server {server.name!r}: {LOG_IN}"
            raise ConfigurationError(msg)

        found = _tree(self._identities[name], f"the login {name}", self.path)
        mode = found.get("mode")
        if mode == "x509":
            path = _text(found.get("path"))
            default = self._home / PROXY_CERTIFICATE
            return Identity(name, default if path is None else expand_home(path))

        if mode == "oidc":
            return self._token_identity(name, found)

        kind = f"of a kind that kaleden does not know: {_brief(mode)}"
        raise ConfigurationError(f"the login {name!r} in {self.path} is {kind}")

    def _token_identity(self, name: str, found: Tree) -> Identity:
        token = _text(_tree(found.get("token"), f"{name}.token", self.path).get("access"))
        if token is None:
            raise ConfigurationError(f"the login {name!r} in {self.path} has no token: {LOG_IN}")

        seconds = _tree(found.get("expiry"), f"{name}.expiry", self.path).get("access")
        return Identity(name, token=token, expires=_moment(seconds))

    def read_again(self) -> Saved:
        """Read what is in the file now.

        Raises:
            ConfigurationError: it cannot be read any more.
        """
        return read_saved(self.path, self._home)

    def registry(self) -> tuple[str, str] | None:
        """Read the user and secret of a private image registry, if there are any.

        Raises:
            ConfigurationError: what is there is no mapping.
        """
        found = _tree(self._registry, "registry", self.path)
        username, secret = _text(found.get("username")), _text(found.get("secret"))
        return None if username is None or secret is None else (username, secret)


def find_saved(home: Path | None) -> Path | None:
    """Find the file, if there is one."""
    places = () if home is None else (home / place for place in PLACES)
    return next((place for place in places if exists(place)), None)


def read_saved(path: Path, home: Path) -> Saved:
    """Read the file.

    Raises:
        ConfigurationError: it cannot be read as any of its known shapes.
    """
    document = _tree(_load(path), "what is in it", path)
    if "contexts" in document and "version" not in document:
        return _read_contexts(document, path, home)

    version = document.get("version")
    if version is None:
        raise ConfigurationError(f"{path} has no `version:`: {LOG_IN}, or give url= and token=")

    if version not in _VERSIONS:
        msg = (
            f"{path} is of version {_brief(version)}, and kaleden knows "
            f"{' and '.join(map(str, _VERSIONS))}: update kaleden, or give url= and token="
        )
        raise ConfigurationError(msg)

    active = _tree(document.get("active"), "active", path)
    return Saved(
        path,
        _text(active.get("server")),
        home,
        _tree(document.get("servers"), "servers", path),
        _tree(document.get("authentication"), "authentication", path),
        _text(active.get("authentication")),
        document.get("registry"),
    )


def _read_contexts(document: Tree, path: Path, home: Path) -> Saved:
    contexts = _tree(document["contexts"], "contexts", path)
    servers = {name: _server_in(context, name) for name, context in contexts.items()}
    return Saved(
        path,
        _text(document.get("active")),
        home,
        servers,
        contexts,
        None,
        document.get("registry"),
    )


def _server_in(context: object, name: str) -> object:
    """Take the server out of a context; what is none is refused when it is asked for."""
    server = cast("Tree", context).get("server") if isinstance(context, Mapping) else context
    return {**cast("Tree", server), "idp": name} if isinstance(server, Mapping) else server


def _load(path: Path) -> object:
    # Only who has such a file needs it.
    import yaml  # noqa: PLC0415

    content = _read(path)
    try:
        return yaml.safe_load(content)
    except Exception:  # noqa: BLE001  # besides its own errors PyYAML raises whatever comes
        # The error itself quotes the place, where a secret may stand.
        msg = f"{path} is no YAML, or only half of it: {LOG_IN}, or give url= and token="
        raise ConfigurationError(msg) from None


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # To open a pipe would wait for somebody to write.
            raise ConfigurationError(f"{path} is no file: {LOG_IN}, or give url= and token=")

        with path.open("rb") as file:
            content = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error

    if len(content) > _MAX_SIZE:
        msg = f"{path} is no configuration of canfar: it has more than {_MAX_SIZE} bytes"
        raise ConfigurationError(msg)

    return content


def _brief(value: object) -> str:
    """Quote a value, but no list or mapping: by aliases these may be endless."""
    return reprlib.repr(value) if isinstance(value, str | int | float | None) else "something else"


def _tree(value: object, what: str, path: Path) -> Tree:
    """Take a mapping, or nothing for none."""
    if value is None:
        return {}

    if not isinstance(value, Mapping):
        msg = f"{path} is no configuration of canfar: {what} is no mapping"
        raise ConfigurationError(msg)

    return cast("Tree", value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _moment(seconds: object) -> datetime | None:
    """Read seconds since 1970; 0 is how the file says that nobody knows."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        return None

    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
