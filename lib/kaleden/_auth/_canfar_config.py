"""The configuration that the ``canfar`` client has saved: servers, logins, a registry.

Its file has one of three forms. Versions 1 and 2 have servers and identities apart::

    version: 2
    active: {authentication: <idp>, server: <name>}
    authentication: {<idp>: {mode: x509, path: <pem>}
                  or <idp>: {mode: oidc, token: {access: <token>}, expiry: {access: <seconds>}}}
    servers: {<name>: {idp: <idp>, url: <url>, version: v1}}
    registry: {url: <url>, username: <user>, secret: <secret>}

The form before them has no version. It has contexts, each an identity with its one server::

    active: <name>
    contexts: {<name>: {mode: ..., server: {name: <name>, url: <url>, version: v1}}}

Each part is read when it is needed, so a damaged part affects no other.
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
"""Advice in messages about a login that is not usable."""

CONFIG_PATHS: Final = (".canfar/config.yaml", ".skaha/config.yaml")
"""The paths of the file, under the home directory: the first that exists is used."""

PROXY_CERTIFICATE: Final = ".ssl/cadcproxy.pem"
"""The path of the certificate of ``cadc-get-cert`` and ``canfar login``, in the home directory."""

_VERSIONS: Final = (1, 2)
_MAX_SIZE: Final = 2**16
"""Bytes of a file, at most; real ones have some thousand."""

Tree = Mapping[str, Any]


@final
@frozen
class Identity:
    """A login for the servers of one identity provider.

    Attributes:
        name: the name of the provider or of the context.
        certificate: the path of the X.509 certificate, for a login of that kind.
        token: the OIDC access token, for a login of that kind.
        expires: the end of the token's validity, if that is known.
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
        name: its name in the file.
        endpoint: its endpoint.
        identity: the name of the identity that belongs to it, if any.
    """

    name: str
    endpoint: Endpoint
    identity: str | None


@final
@frozen
class Saved:
    """The content of the file.

    Attributes:
        path: the path of the file.
        active: the name of the active server, if one is.
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
            ConfigurationError: no server has that name, or it cannot be read.
        """
        if name not in self._servers:
            known = f"it has {', '.join(self.names)}" if self._servers else "it has none"
            msg = f"there is no server {name!r} in {self.path}: {known}"
            raise ConfigurationError(msg)

        found = _as_mapping(self._servers[name], f"servers.{name}", self.path)
        url = _as_text(found.get("url"))
        if url is None:
            raise ConfigurationError(f"server {name!r} in {self.path} has no url: {LOG_IN}")

        identity = self._active_identity if name == self.active else None
        endpoint = parse_endpoint(url, _as_text(found.get("version")) or "v1")
        return SavedServer(name, endpoint, identity or _as_text(found.get("idp")))

    def server_at(self, endpoint: Endpoint) -> SavedServer | None:
        """Find the server with an endpoint; the active one before others."""
        for name in sorted(self._servers, key=lambda name: name != self.active):
            try:
                server = self.server(name)
            except ConfigurationError:
                continue  # A damaged entry cannot be the server.
            if server.endpoint.is_same_server(endpoint):
                return server
        return None

    def identity(self, server: SavedServer) -> Identity:
        """Read the identity that belongs to a server.

        Raises:
            ConfigurationError: it has none, or one that is not usable.
        """
        name = server.identity
        if name is None or name not in self._identities:
            msg = f"{self.path} has no login for server {server.name!r}: {LOG_IN}"
            raise ConfigurationError(msg)

        found = _as_mapping(self._identities[name], f"the login {name}", self.path)
        mode = found.get("mode")
        if mode == "x509":
            path = _as_text(found.get("path"))
            default = self._home / PROXY_CERTIFICATE
            return Identity(name, default if path is None else expand_home(path))

        if mode == "oidc":
            return self._token_identity(name, found)

        kind = f"of a kind that kaleden does not know: {_shorten(mode)}"
        raise ConfigurationError(f"the login {name!r} in {self.path} is {kind}")

    def _token_identity(self, name: str, found: Tree) -> Identity:
        token = _as_text(_as_mapping(found.get("token"), f"{name}.token", self.path).get("access"))
        if token is None:
            raise ConfigurationError(f"the login {name!r} in {self.path} has no token: {LOG_IN}")

        seconds = _as_mapping(found.get("expiry"), f"{name}.expiry", self.path).get("access")
        return Identity(name, token=token, expires=_parse_seconds(seconds))

    def read_again(self) -> Saved:
        """Read the current content of the file.

        Raises:
            ConfigurationError: it cannot be read any more.
        """
        return read_saved(self.path, self._home)

    def registry(self) -> tuple[str, str] | None:
        """Read the user and secret of a private image registry, if there are any.

        Raises:
            ConfigurationError: the registry is not a mapping.
        """
        found = _as_mapping(self._registry, "registry", self.path)
        username, secret = _as_text(found.get("username")), _as_text(found.get("secret"))
        return None if username is None or secret is None else (username, secret)


def find_saved(home: Path) -> Path | None:
    """Find the file, if there is one."""
    return next((path for path in map(home.joinpath, CONFIG_PATHS) if exists(path)), None)


def read_saved(path: Path, home: Path) -> Saved:
    """Read the file.

    Raises:
        ConfigurationError: it has none of the known forms.
    """
    document = _as_mapping(_load(path), "its content", path)
    if "contexts" in document and "version" not in document:
        document = _upgrade(document, path)

    version = document.get("version")
    if version is None:
        raise ConfigurationError(f"{path} has no `version:`: {LOG_IN}, or give url= and token=")

    if version not in _VERSIONS:
        msg = (
            f"{path} is of version {_shorten(version)}, and kaleden knows "
            f"{' and '.join(map(str, _VERSIONS))}: update kaleden, or give url= and token="
        )
        raise ConfigurationError(msg)

    active = _as_mapping(document.get("active"), "active", path)
    return Saved(
        path,
        _as_text(active.get("server")),
        home,
        _as_mapping(document.get("servers"), "servers", path),
        _as_mapping(document.get("authentication"), "authentication", path),
        _as_text(active.get("authentication")),
        document.get("registry"),
    )


def _upgrade(document: Tree, path: Path) -> Tree:
    """Return a document with contexts in the form of version 2."""
    contexts = _as_mapping(document["contexts"], "contexts", path)
    return {
        "version": 2,
        "active": {"server": document.get("active")},
        "authentication": contexts,
        "servers": {name: _extract_server(context, name) for name, context in contexts.items()},
        "registry": document.get("registry"),
    }


def _extract_server(context: object, name: str) -> object:
    """Return the server of a context; one that is not a mapping is refused when it is read."""
    server = cast("Tree", context).get("server") if isinstance(context, Mapping) else context
    return {**cast("Tree", server), "idp": name} if isinstance(server, Mapping) else server


def _load(path: Path) -> object:
    # Slow to load, and needed only for such a file.
    import yaml  # noqa: PLC0415

    content = _read(path)
    try:
        return yaml.safe_load(content)
    except Exception:  # noqa: BLE001  # PyYAML raises errors of other types too
        # The error quotes the line, which may hold a secret.
        msg = f"{path} is no YAML, or only half of it: {LOG_IN}, or give url= and token="
        raise ConfigurationError(msg) from None


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            # To open a pipe would wait for a writer.
            raise ConfigurationError(f"{path} is no file: {LOG_IN}, or give url= and token=")

        with path.open("rb") as file:
            content = file.read(_MAX_SIZE + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error

    if len(content) > _MAX_SIZE:
        msg = f"{path} is no configuration of canfar: it has more than {_MAX_SIZE} bytes"
        raise ConfigurationError(msg)

    return content


def _shorten(value: object) -> str:
    """Quote a value, except a list or mapping: with aliases these may be endless."""
    return reprlib.repr(value) if isinstance(value, str | int | float | None) else "something else"


def _as_mapping(value: object, part: str, path: Path) -> Tree:
    """Return a mapping, an empty one for None; *part* is its name in messages."""
    if value is None:
        return {}

    if not isinstance(value, Mapping):
        msg = f"{path} is no configuration of canfar: {part} is no mapping"
        raise ConfigurationError(msg)

    return cast("Tree", value)


def _as_text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _parse_seconds(seconds: object) -> datetime | None:
    """Parse seconds since 1970; the file has 0 if the time is unknown."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
        return None

    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None
