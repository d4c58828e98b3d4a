"""The calls of the Skaha API, each with the server's own texts and statuses.

Pure but for `Service.log_file`: a `Call` goes in, a `Reply` comes out, and the `Platform` is
changed. Nothing here knows of HTTP servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from attrs import evolve, field, frozen

from kaleden.local._api import _render as render
from kaleden.local._platform._catalogue import REGISTRIES, Resources, images, is_private
from kaleden.local._platform._create_params import (
    NotCreated,
    Parameters,
    read_app_spec,
    read_registry_login,
    read_spec,
)
from kaleden.local._platform._model import HTTPError, Kind, Session, invalid
from kaleden.local._platform._state_machine import Platform

VERSIONS = ("v0", "v1")
MAX_TARGET = 8192
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TEXT = "text/plain"
_XML = "text/xml;charset=UTF-8"
_LOGIN_STANDARD = 'standard_id="ivo://ivoa.net/sso#tls-with-password"'
_HTML = "text/html;charset=utf-8"


@frozen
class Call:
    """A request, undressed.

    Args:
        method: in capitals.
        path: below the platform's base, still percent-encoded: "/v1/session/k3jd92xa".
        parameters: of the query, and of the form where there is one.
        user: who asks; None if nobody is logged in.
        now: seconds since the epoch.
        registry_secret: the header ``x-skaha-registry-auth``.
        refused: why who asks is not let in, if so.
    """

    method: str
    path: str
    parameters: Parameters
    user: str | None
    now: float
    registry_secret: str | None = field(default=None, repr=False)
    refused: HTTPError | None = None


@frozen
class Reply:
    """An answer; where there is a file, what is in it now follows the body."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    file: Path | None = None


def _text(text: str) -> Reply:
    return Reply(200, text.encode(), _TEXT)


def _json(value: Any) -> Reply:
    return Reply(200, render.to_json(value), "application/json")


def _page(what: str) -> bytes:
    """Write the page that the server's container gives before the service is reached."""
    return f"<!doctype html><title>HTTP Status {what}</title><h1>HTTP Status {what}</h1>".encode()


def _no_log(_: str) -> Path | None:
    return None


@frozen
class Service:
    """The API of one platform.

    Args:
        platform: whose sessions these are.
        origin: where pages of sessions are, as "http://127.0.0.1:8080".
        log_file: finds the log of a session, by its id.
        anonymous: the status of a call without a login: 401, or 400 as newer servers answer.
        registry_logins: user and secret at the registry, by the names of our users: what came with
            the last private image that each of them launched.
    """

    platform: Platform
    origin: str
    log_file: Callable[[str], Path | None] = _no_log
    anonymous: Literal[400, 401] = 401
    registry_logins: dict[str, tuple[str, str]] = field(
        factory=dict[str, tuple[str, str]], repr=False
    )

    @cached_property
    def offer(self) -> Resources:
        """The resources that may be asked for."""
        return Resources.of(self.platform.settings)

    @property
    def base(self) -> str:
        """The base URL of the API, without a version."""
        return f"{self.origin}/skaha"

    def handle(self, call: Call) -> Reply:
        """Answer a call. Time passes first, so what is due by then has happened."""
        self.platform.advance(call.now)
        try:
            return self._dispatch(call)
        except HTTPError as refusal:
            end = "" if refusal.status == 500 else "\n"
            headers = self._challenges() if refusal.status == 401 else ()
            return Reply(refusal.status, f"{refusal.text}{end}".encode(), _TEXT, headers)

    def _challenges(self) -> tuple[tuple[str, str], ...]:
        """How one can log in, for those who did not."""
        challenges = (
            "Bearer",
            'ivoa_x509 standard_id="ivo://ivoa.net/sso#BasicAA"',
            "ivoa_cookie",
            f'ivoa_bearer {_LOGIN_STANDARD}, access_url="{self.origin}/"',
        )
        return tuple(("www-authenticate", challenge) for challenge in challenges)

    def _dispatch(self, call: Call) -> Reply:
        pattern, names = _match(call.path)
        # The server's container lets no encoded slash through.
        if any("/" in name for name in names):
            return Reply(400, _page("400: Bad Request"), _HTML)
        methods = _ROUTES.get(pattern)
        if methods is None:
            return Reply(404, _page("404: Not Found"), _HTML)
        answer = methods.get(call.method)
        if answer is None:
            allow = (("allow", ", ".join(methods)),)
            return Reply(405, f"unsupported: HTTP {call.method}\n".encode(), _TEXT, allow)
        if pattern not in _OPEN:
            self._check_login(call)

        reply = answer(_Exchange(self, call, call.user or "", names))
        identity = () if call.user is None else (("x-vo-authenticated", call.user),)
        return evolve(reply, headers=(*reply.headers, *identity))

    def _check_login(self, call: Call) -> None:
        if call.refused is not None:
            raise call.refused
        if call.user is None and self.anonymous == 400:
            raise invalid("cannot get group memberships for anonymous")
        if call.user is None:
            raise HTTPError(401, "Unauthorized")


def _match(path: str) -> tuple[tuple[str, ...], list[str]]:
    """Take a path apart: its pattern, with "*" for the names in it, and those names."""
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    if segments[0] in VERSIONS:
        del segments[0]
    pattern = tuple("*" if i % 2 else segment for i, segment in enumerate(segments))
    return pattern, segments[1::2]


def _matches(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower()


def _filtered(sessions: Iterable[Session], parameters: Parameters) -> Iterator[Session]:
    """Apply ``type`` and ``status``; desktop apps show only when asked for by type."""
    kind, status = parameters.get("type"), parameters.get("status")
    for session in sessions:
        shown = kind is not None or session.appid is None
        if shown and _matches(kind, session.spec.kind) and _matches(status, session.status):
            yield session


@frozen
class _Exchange:
    """One call, on its way to a reply. Each method answers one method of one path."""

    service: Service
    call: Call
    user: str
    names: list[str]

    @property
    def platform(self) -> Platform:
        return self.service.platform

    @property
    def id(self) -> str:
        """The session's id in the path."""
        return self.names[0]

    @property
    def appid(self) -> str:
        """The desktop app's id in the path."""
        return self.names[1]

    def parameter(self, name: str) -> str | None:
        return self.call.parameters.get(name)

    def check_id(self) -> None:
        if not _LABEL.fullmatch(self.id):
            raise invalid(f"Invalid label value: {self.id}")

    def objects(self, sessions: Iterable[Session]) -> Reply:
        return _json([render.session_object(s, self.service.origin) for s in sessions])

    # Sessions

    def list_sessions(self) -> Reply:
        view = self.parameter("view") or ""
        if view == "stats":
            return self.statistics()
        if view == "all":
            everyones = _filtered(self.platform.everyones(), self.call.parameters)
            return _json([render.public_object(session) for session in everyones])
        if view.lower() == "interactive":
            return self.list_interactive()
        return self.objects(_filtered(self.platform.of_user(self.user), self.call.parameters))

    def list_interactive(self) -> Reply:
        """List with desktop apps; only ``status`` filters here."""
        status = self.parameter("status")
        return self.objects(
            session
            for session in self.platform.of_user(self.user)
            if session.spec.kind is not Kind.HEADLESS and _matches(status, session.status)
        )

    def statistics(self) -> Reply:
        holding = (s for s in self.platform.everyones() if s.phase.holding)
        gpus = sum(session.spec.gpus for session in holding)
        return _json(render.statistics(self.platform.reserved, gpus, self.platform.settings))

    def create(self) -> Reply:
        login = self.call.registry_secret
        registry_login = None if login is None else read_registry_login(login)
        try:
            spec = read_spec(
                self.call.parameters,
                self.service.offer,
                lambda: self.platform.check_limit(self.user),
            )
        except NotCreated:
            kind = self.parameter("type") or Kind.HEADLESS
            text = render.job_not_found(self.user, kind, self.platform.new_id())
            raise HTTPError(500, text) from None
        if is_private(spec.image):
            self.log_in_at_registry(spec.image, registry_login)
        return _text(f"{self.platform.create(self.user, spec, self.call.now).id}\n")

    def log_in_at_registry(self, image: str, login: tuple[str, str] | None) -> None:
        """Keep the login for the image to be fetched with; the server does not try it either."""
        if login is None:
            raise invalid(f"No authentication provided for unknown or private image {image}")
        self.service.registry_logins[self.user] = login

    def refuse_delete_all(self) -> Reply:
        raise invalid("Cannot kill all sessions.")

    def get(self) -> Reply:
        self.check_id()
        view = self.parameter("view")
        session = self.platform.find(self.user, self.id)
        if view == "logs":
            # Always 200: an unknown or pending session has an empty log.
            log = None if session is None else self.service.log_file(session.id)
            return Reply(200, b"", _TEXT, file=log)
        if session is None:
            raise HTTPError(404, f"session {self.id} not found")
        if view == "events":
            return self.events(session)
        return _json(render.session_object(session, self.service.origin))

    def events(self, session: Session) -> Reply:
        if not session.has_pod:
            raise HTTPError(404, f"session {self.id} not found.")
        return _text(render.events_table(session.events))

    def modify(self) -> Reply:
        action = self.parameter("action")
        if action is None:
            raise invalid("Cannot modify an existing session")
        if action != "renew":
            raise invalid("unrecognized action")
        self.platform.renew(self.user, self.id, self.call.now)
        return Reply()

    def delete(self) -> Reply:
        """Answer 200 whether there was such a session or not."""
        self.platform.delete(self.user, self.id, self.call.now)
        return Reply()

    # Desktop apps

    def list_apps(self) -> Reply:
        """List all the user's desktop apps: the server ignores whose were asked for."""
        status = self.parameter("status")
        everyones = self.parameter("view") == "all"
        sessions = self.platform.everyones() if everyones else self.platform.of_user(self.user)
        apps = [s for s in sessions if s.appid is not None and _matches(status, s.status)]
        return _json(list(map(render.public_object, apps))) if everyones else self.objects(apps)

    def create_app(self) -> Reply:
        spec = read_app_spec(self.call.parameters, self.service.offer)
        app = self.platform.create_app(self.user, self.id, spec, self.call.now)
        return _text(f"{app.appid}\n")

    def get_app(self) -> Reply:
        app = self.platform.find(self.user, self.id, self.appid)
        if app is None:
            what = f"desktop app with session {self.id} and app ID {self.appid}"
            raise HTTPError(404, f"{what} was not found")
        return _json(render.session_object(app, self.service.origin))

    def modify_app(self) -> Reply:
        raise invalid("Cannot modify an existing desktop app")

    def delete_app(self) -> Reply:
        self.platform.delete(self.user, self.id, self.call.now, self.appid)
        return Reply()

    # The platform

    def images(self) -> Reply:
        wanted = self.parameter("type")
        if wanted is None:
            return _json(images(None))
        try:
            return _json(images(Kind(wanted.lower())))
        except ValueError:
            raise invalid(f"unknown type: {wanted}") from None

    def context(self) -> Reply:
        return _json(self.service.offer.context(self.platform.limit(self.user)))

    def repository(self) -> Reply:
        return _json(list(REGISTRIES))

    def availability(self) -> Reply:
        return Reply(200, render.AVAILABILITY.encode(), _XML)

    def capabilities(self) -> Reply:
        return Reply(200, render.capabilities(self.service.base).encode(), _XML)


_OPEN = (("availability",), ("capabilities",))
_ROUTES: dict[tuple[str, ...], dict[str, Callable[[_Exchange], Reply]]] = {
    ("session",): {
        "GET": _Exchange.list_sessions,
        "POST": _Exchange.create,
        "DELETE": _Exchange.refuse_delete_all,
    },
    ("session", "*"): {
        "GET": _Exchange.get,
        "POST": _Exchange.modify,
        "DELETE": _Exchange.delete,
    },
    ("session", "*", "app"): {"GET": _Exchange.list_apps, "POST": _Exchange.create_app},
    ("session", "*", "app", "*"): {
        "GET": _Exchange.get_app,
        "POST": _Exchange.modify_app,
        "DELETE": _Exchange.delete_app,
    },
    ("image",): {"GET": _Exchange.images},
    ("context",): {"GET": _Exchange.context},
    ("repository",): {"GET": _Exchange.repository},
    ("availability",): {"GET": _Exchange.availability, "HEAD": _Exchange.availability},
    ("capabilities",): {"GET": _Exchange.capabilities, "HEAD": _Exchange.capabilities},
}
