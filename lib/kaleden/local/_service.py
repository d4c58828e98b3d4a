"""The calls of the Skaha API, each with the server's own texts and statuses.

Pure but for `Service.log_file`: a `Call` goes in, a `Reply` comes out, and the `Platform` is
changed. Nothing here knows of HTTP servers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from attrs import field, frozen

from kaleden.local import _render as render
from kaleden.local._catalogue import REGISTRIES, Resources, images
from kaleden.local._manifest import (
    NotCreated,
    Parameters,
    check_registry_secret,
    read_app_spec,
    read_spec,
)
from kaleden.local._model import Kind, Refused, Session, invalid
from kaleden.local._platform import Platform

VERSIONS = ("v0", "v1")
MAX_TARGET = 8192
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TEXT = "text/plain"
_XML = "text/xml;charset=UTF-8"
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
    """

    method: str
    path: str
    parameters: Parameters
    user: str | None
    now: float
    registry_secret: str | None = None


@frozen
class Reply:
    """An answer; where there is a file, what is in it now follows the body."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    file: Path | None = None


def _text(text: str, status: int = 200) -> Reply:
    return Reply(status, text.encode(), _TEXT)


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
    """

    platform: Platform
    origin: str
    log_file: Callable[[str], Path | None] = _no_log
    resources: Resources = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "resources", Resources.of(self.platform.settings))

    @property
    def base(self) -> str:
        """The base URL of the API, without a version."""
        return f"{self.origin}/skaha"

    def handle(self, call: Call) -> Reply:
        """Answer a call. Time passes first, so what is due by then has happened."""
        self.platform.advance(call.now)
        try:
            return self._dispatch(call)
        except Refused as refusal:
            end = "" if refusal.status == 500 else "\n"
            return Reply(
                refusal.status, f"{refusal.text}{end}".encode(), _TEXT, self._challenges(refusal)
            )

    def _challenges(self, refusal: Refused) -> tuple[tuple[str, str], ...]:
        """How one can log in, told to those who did not."""
        if refusal.status != 401:
            return ()
        password = 'standard_id="ivo://ivoa.net/sso#tls-with-password"'
        challenges = (
            "Bearer",
            'ivoa_x509 standard_id="ivo://ivoa.net/sso#BasicAA"',
            "ivoa_cookie",
            f'ivoa_bearer {password}, access_url="{self.origin}/"',
        )
        return tuple(("www-authenticate", challenge) for challenge in challenges)

    def _dispatch(self, call: Call) -> Reply:
        pattern, names = _match(call.path)
        methods = _OPEN.get(pattern) or _LOGGED_IN.get(pattern)
        if any("/" in name for name in names):
            return Reply(400, _page("400 – Bad Request"), _HTML)
        if methods is None:
            return Reply(404, _page("404 – Not Found"), _HTML)
        handler = methods.get(call.method)
        if handler is None:
            reply = _text(f"unsupported: HTTP {call.method}\n", 405)
            return Reply(reply.status, reply.body, _TEXT, (("allow", ", ".join(methods)),))
        if pattern in _OPEN:
            return handler(self, call, "")
        if call.user is None:
            raise Refused(401, "Unauthorized")

        reply = handler(self, call, call.user, *names)
        headers = (*reply.headers, ("x-vo-authenticated", call.user))
        return Reply(reply.status, reply.body, reply.content_type, headers, reply.file)


def _match(path: str) -> tuple[tuple[str, ...], list[str]]:
    """Take a path apart: its pattern, with "*" for the names in it, and those names.

    Slashes that were encoded stay inside their name.
    """
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    if segments[0] in VERSIONS:
        del segments[0]
    pattern = tuple("*" if i % 2 else segment for i, segment in enumerate(segments))
    return pattern, segments[1::2]


# Sessions


def _check_label(id_: str) -> None:
    if not _LABEL.fullmatch(id_):
        raise invalid(f"Invalid label value: {id_}")


def _find(service: Service, user: str, id_: str) -> Session:
    _check_label(id_)
    session = service.platform.find(user, id_)
    if session is None:
        raise Refused(404, f"session {id_} not found")
    return session


def _matches(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower()


def _list(service: Service, call: Call, user: str) -> Reply:
    view = call.parameters.get("view") or ""
    if view == "stats":
        return _statistics(service)
    if view == "all":
        everyones = service.platform.everyones()
        return _json([render.public_object(s) for s in _filtered(everyones, call)])

    chosen = service.platform.of_user(user)
    if view.lower() == "interactive":
        status = call.parameters.get("status")
        kept = (s for s in chosen if s.spec.kind is not Kind.HEADLESS)
        return _objects(service, (s for s in kept if _matches(status, s.status)))
    return _objects(service, _filtered(chosen, call))


def _filtered(sessions: Iterable[Session], call: Call) -> Iterable[Session]:
    """Apply ``type`` and ``status``; desktop apps show only when asked for by type."""
    kind, status = call.parameters.get("type"), call.parameters.get("status")
    for session in sessions:
        shown = kind is not None or session.appid is None
        if shown and _matches(kind, session.spec.kind) and _matches(status, session.status):
            yield session


def _objects(service: Service, sessions: Iterable[Session]) -> Reply:
    return _json([render.session_object(session, service.origin) for session in sessions])


def _statistics(service: Service) -> Reply:
    platform = service.platform
    gpus = sum(s.spec.gpus for s in platform.everyones() if s.phase.holding)
    return _json(render.statistics(platform.reserved, gpus, platform.settings))


def _create(service: Service, call: Call, user: str) -> Reply:
    if call.registry_secret is not None:
        check_registry_secret(call.registry_secret)
    platform = service.platform
    try:
        spec = read_spec(call.parameters, service.resources, lambda: platform.check_limit(user))
    except NotCreated:
        raise _hidden_failure(service, call, user) from None
    return _text(f"{platform.create(user, spec, call.now).id}\n")


def _hidden_failure(service: Service, call: Call, user: str) -> Refused:
    kind = call.parameters.get("type") or Kind.HEADLESS
    return Refused(500, render.job_not_found(user, kind, service.platform.new_id()))


def _refuse_delete_all(service: Service, call: Call, user: str) -> Reply:
    raise invalid("Cannot kill all sessions.")


def _get(service: Service, call: Call, user: str, id_: str) -> Reply:
    view = call.parameters.get("view")
    if view == "logs":
        return _logs(service, user, id_)
    session = _find(service, user, id_)
    if view == "events":
        return _events(session)
    return _json(render.session_object(session, service.origin))


def _logs(service: Service, user: str, id_: str) -> Reply:
    """Answer 200 whatever happens: an unknown or pending session has an empty log."""
    _check_label(id_)
    session = service.platform.find(user, id_)
    file = None if session is None else service.log_file(session.id)
    return Reply(200, b"", _TEXT, file=file)


def _events(session: Session) -> Reply:
    if not session.has_pod:
        raise Refused(404, f"session {session.id} not found.")
    return _text(render.events_table(session.events))


def _modify(service: Service, call: Call, user: str, id_: str) -> Reply:
    _check_label(id_)
    action = call.parameters.get("action")
    if action is None:
        raise invalid("Cannot modify an existing session")
    if action != "renew":
        raise invalid("unrecognized action")
    service.platform.renew(user, id_, call.now)
    return Reply()


def _delete(service: Service, call: Call, user: str, id_: str) -> Reply:
    service.platform.delete(user, id_, call.now)
    return Reply()


# Desktop apps


def _list_apps(service: Service, call: Call, user: str, _: str) -> Reply:
    """List all the user's desktop apps: the server ignores whose apps were asked for."""
    if call.parameters.get("view") == "all":
        apps = [s for s in service.platform.everyones() if s.appid is not None]
        return _json([render.public_object(s) for s in _of_status(apps, call)])
    apps = [s for s in service.platform.of_user(user) if s.appid is not None]
    return _objects(service, _of_status(apps, call))


def _of_status(sessions: Iterable[Session], call: Call) -> Iterable[Session]:
    status = call.parameters.get("status")
    return (session for session in sessions if _matches(status, session.status))


def _create_app(service: Service, call: Call, user: str, id_: str) -> Reply:
    spec = read_app_spec(call.parameters, service.resources)
    session = service.platform.create_app(user, id_, spec, call.now)
    return _text(f"{session.appid}\n")


def _get_app(service: Service, call: Call, user: str, id_: str, appid: str) -> Reply:
    app = service.platform.find(user, id_, appid)
    if app is None:
        raise Refused(404, f"desktop app with session {id_} and app ID {appid} was not found")
    return _json(render.session_object(app, service.origin))


def _modify_app(service: Service, call: Call, user: str, id_: str, appid: str) -> Reply:
    raise invalid("Cannot modify an existing desktop app")


def _delete_app(service: Service, call: Call, user: str, id_: str, appid: str) -> Reply:
    service.platform.delete(user, id_, call.now, appid)
    return Reply()


# The platform


def _images(service: Service, call: Call, user: str) -> Reply:
    wanted = call.parameters.get("type")
    if wanted is None:
        return _json(images(None))
    try:
        return _json(images(Kind(wanted.lower())))
    except ValueError:
        raise invalid(f"unknown type: {wanted}") from None


def _context(service: Service, call: Call, user: str) -> Reply:
    return _json(service.resources.context())


def _repository(service: Service, call: Call, user: str) -> Reply:
    return _json(list(REGISTRIES))


def _availability(service: Service, call: Call, user: str) -> Reply:
    return Reply(200, render.AVAILABILITY.encode(), _XML)


def _capabilities(service: Service, call: Call, user: str) -> Reply:
    return Reply(200, render.capabilities(service.base).encode(), _XML)


Handler = Callable[..., Reply]
_OPEN: dict[tuple[str, ...], dict[str, Handler]] = {
    ("availability",): {"GET": _availability, "HEAD": _availability},
    ("capabilities",): {"GET": _capabilities, "HEAD": _capabilities},
}
_LOGGED_IN: dict[tuple[str, ...], dict[str, Handler]] = {
    ("session",): {"GET": _list, "POST": _create, "DELETE": _refuse_delete_all},
    ("session", "*"): {"GET": _get, "POST": _modify, "DELETE": _delete},
    ("session", "*", "app"): {"GET": _list_apps, "POST": _create_app},
    ("session", "*", "app", "*"): {
        "GET": _get_app,
        "POST": _modify_app,
        "DELETE": _delete_app,
    },
    ("image",): {"GET": _images},
    ("context",): {"GET": _context},
    ("repository",): {"GET": _repository},
}
