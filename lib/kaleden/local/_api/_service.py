"""The endpoints of the Skaha API, with the server's texts and status codes.

`Service.handle` maps an `ApiRequest` to an `ApiResponse`, and changes the `Platform`. It does no
I/O, except that `Service.log_file` may look for a file, and does not depend on an HTTP server.
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
from kaleden.local._platform._catalogue import REGISTRIES, Resources, is_private, list_images
from kaleden.local._platform._create_params import (
    NotCreated,
    Parameters,
    read_app_spec,
    read_registry_login,
    read_spec,
)
from kaleden.local._platform._model import HTTPError, Kind, Session
from kaleden.local._platform._state_machine import Platform

VERSIONS = ("v0", "v1")
MAX_TARGET = 8192
_LABEL = re.compile(r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TEXT = "text/plain"
_XML = "text/xml;charset=UTF-8"
_LOGIN_STANDARD = 'standard_id="ivo://ivoa.net/sso#tls-with-password"'
_HTML = "text/html;charset=utf-8"


@frozen
class ApiRequest:
    """A request to the API, independent of HTTP.

    Args:
        method: the method, in capitals.
        path: the path below the platform's base, percent-encoded: "/v1/session/k3jd92xa".
        parameters: the parameters of the query and of the form.
        user: the authenticated user; None for an anonymous request.
        now: the time, in seconds since the epoch.
        registry_secret: the header ``x-skaha-registry-auth``.
        login_error: the error if authentication failed.
    """

    method: str
    path: str
    parameters: Parameters
    user: str | None
    now: float
    registry_secret: str | None = field(default=None, repr=False)
    login_error: HTTPError | None = None


@frozen
class ApiResponse:
    """A response. If *file* is set, its current content follows the body."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    file: Path | None = None


def _make_text_response(text: str) -> ApiResponse:
    return ApiResponse(200, text.encode(), _TEXT)


def _make_json_response(value: Any) -> ApiResponse:
    return ApiResponse(200, render.encode_json(value), "application/json")


@frozen
class Service:
    """The API of one platform.

    Args:
        platform: the platform with the sessions.
        origin: the base URL of the sessions' pages, for example "http://127.0.0.1:8080".
        log_file: returns the log file of the session with this id, or None.
        anonymous: the status of the response to an anonymous request: 401, or 400 as on newer
            servers.
        registry_logins: the registry login (user name and secret) of each user's last private
            image, by the user's name on this platform.
    """

    platform: Platform
    origin: str
    log_file: Callable[[str], Path | None] = lambda _: None
    anonymous: Literal[400, 401] = 401
    registry_logins: dict[str, tuple[str, str]] = field(
        factory=dict[str, tuple[str, str]], repr=False
    )

    @cached_property
    def offer(self) -> Resources:
        """The resources that can be requested."""
        return Resources.from_settings(self.platform.settings)

    @property
    def base(self) -> str:
        """The base URL of the API, without a version."""
        return f"{self.origin}/skaha"

    def handle(self, request: ApiRequest) -> ApiResponse:
        """Return the response to a request, after advancing the platform to the request's time."""
        self.platform.advance(request.now)
        try:
            return self._dispatch(request)
        except HTTPError as error:
            end = "" if error.status == 500 else "\n"
            headers = self._list_challenges() if error.status == 401 else ()
            return ApiResponse(error.status, f"{error.text}{end}".encode(), _TEXT, headers)

    def _list_challenges(self) -> tuple[tuple[str, str], ...]:
        """Return the challenges of a 401 response: the ways to log in."""
        challenges = (
            "Bearer",
            'ivoa_x509 standard_id="ivo://ivoa.net/sso#BasicAA"',
            "ivoa_cookie",
            f'ivoa_bearer {_LOGIN_STANDARD}, access_url="{self.origin}/"',
        )
        return tuple(("www-authenticate", challenge) for challenge in challenges)

    def _dispatch(self, request: ApiRequest) -> ApiResponse:
        pattern, names = _parse_path(request.path)
        # The server's servlet container rejects an encoded slash.
        if any("/" in name for name in names):
            return ApiResponse(400, render.format_error_page("400: Bad Request"), _HTML)
        methods = _ROUTES.get(pattern)
        if methods is None:
            return ApiResponse(404, render.format_error_page("404: Not Found"), _HTML)
        handler = methods.get(request.method)
        if handler is None:
            allow = (("allow", ", ".join(methods)),)
            return ApiResponse(405, f"unsupported: HTTP {request.method}\n".encode(), _TEXT, allow)
        if pattern not in _PUBLIC_PATHS:
            self._check_login(request)

        response = handler(_RequestHandler(self, request, request.user or "", *names))
        identity = () if request.user is None else (("x-vo-authenticated", request.user),)
        return evolve(response, headers=(*response.headers, *identity))

    def _check_login(self, request: ApiRequest) -> None:
        if request.login_error is not None:
            raise request.login_error
        if request.user is None and self.anonymous == 400:
            raise HTTPError(400, "cannot get group memberships for anonymous")
        if request.user is None:
            raise HTTPError(401, "Unauthorized")


def _parse_path(path: str) -> tuple[tuple[str, ...], list[str]]:
    """Split a path into its pattern, with "*" for each name in it, and the names."""
    segments = [unquote(segment) for segment in path.strip("/").split("/")]
    if segments[0] in VERSIONS:
        del segments[0]
    pattern = tuple("*" if i % 2 else segment for i, segment in enumerate(segments))
    return pattern, segments[1::2]


def _matches(wanted: str | None, value: str) -> bool:
    return wanted is None or wanted.lower() == value.lower()


def _filter_sessions(sessions: Iterable[Session], parameters: Parameters) -> Iterator[Session]:
    """Filter by ``type`` and ``status``. Include desktop apps only if ``type`` is given."""
    kind, status = parameters.get("type"), parameters.get("status")
    for session in sessions:
        included = kind is not None or session.appid is None
        if included and _matches(kind, session.spec.kind) and _matches(status, session.status):
            yield session


@frozen
class _RequestHandler:
    """The handler of one request. `_ROUTES` maps methods and paths to its methods."""

    service: Service
    request: ApiRequest
    user: str
    # The ids of the session and of its desktop app in the path.
    id: str = ""
    appid: str = ""

    @property
    def platform(self) -> Platform:
        return self.service.platform

    def get_parameter(self, name: str) -> str | None:
        return self.request.parameters.get(name)

    def respond_with_sessions(self, sessions: Iterable[Session]) -> ApiResponse:
        return _make_json_response(
            [render.format_session(s, self.service.origin) for s in sessions]
        )

    # Sessions

    def list_sessions(self) -> ApiResponse:
        view = self.get_parameter("view") or ""
        if view == "stats":
            return self.get_statistics()
        if view == "all":
            everyones = _filter_sessions(self.platform.everyones(), self.request.parameters)
            return _make_json_response([render.format_public_session(s) for s in everyones])
        if view.lower() == "interactive":
            return self.list_interactive()
        return self.respond_with_sessions(
            _filter_sessions(self.platform.of_user(self.user), self.request.parameters)
        )

    def list_interactive(self) -> ApiResponse:
        """List interactive sessions and desktop apps. Only ``status`` filters this view."""
        status = self.get_parameter("status")
        return self.respond_with_sessions(
            session
            for session in self.platform.of_user(self.user)
            if session.spec.kind is not Kind.HEADLESS and _matches(status, session.status)
        )

    def get_statistics(self) -> ApiResponse:
        holding = (s for s in self.platform.everyones() if s.phase.holding)
        gpus = sum(session.spec.gpus for session in holding)
        return _make_json_response(
            render.format_statistics(self.platform.reserved, gpus, self.platform.settings)
        )

    def create_session(self) -> ApiResponse:
        login = self.request.registry_secret
        registry_login = None if login is None else read_registry_login(login)
        try:
            spec = read_spec(
                self.request.parameters,
                self.service.offer,
                lambda: self.platform.check_limit(self.user),
            )
        except NotCreated:
            kind = self.get_parameter("type") or Kind.HEADLESS
            text = render.format_job_not_found(self.user, kind, self.platform.new_id())
            raise HTTPError(500, text) from None
        if is_private(spec.image):
            self.store_registry_login(spec.image, registry_login)
        session = self.platform.create(self.user, spec, self.request.now)
        return _make_text_response(f"{session.id}\n")

    def store_registry_login(self, image: str, login: tuple[str, str] | None) -> None:
        """Store the registry login for the image. Like the server, do not test it."""
        if login is None:
            raise HTTPError(400, f"No authentication provided for unknown or private image {image}")
        self.service.registry_logins[self.user] = login

    def refuse_delete_all(self) -> ApiResponse:
        raise HTTPError(400, "Cannot kill all sessions.")

    def get_session(self) -> ApiResponse:
        if not _LABEL.fullmatch(self.id):
            raise HTTPError(400, f"Invalid label value: {self.id}")
        view = self.get_parameter("view")
        session = self.platform.find(self.user, self.id)
        if view == "logs":
            # The status is always 200: an unknown or pending session has an empty log.
            log = None if session is None else self.service.log_file(session.id)
            return ApiResponse(200, b"", _TEXT, file=log)
        if session is None:
            raise HTTPError(404, f"session {self.id} not found")
        if view == "events":
            if not session.has_pod:
                raise HTTPError(404, f"session {self.id} not found.")
            return _make_text_response(render.format_events(session.events))
        return _make_json_response(render.format_session(session, self.service.origin))

    def modify_session(self) -> ApiResponse:
        action = self.get_parameter("action")
        if action is None:
            raise HTTPError(400, "Cannot modify an existing session")
        if action != "renew":
            raise HTTPError(400, "unrecognized action")
        self.platform.renew(self.user, self.id, self.request.now)
        return ApiResponse()

    def delete_session(self) -> ApiResponse:
        """Delete a session. The status is 200 even if it does not exist."""
        self.platform.delete(self.user, self.id, self.request.now)
        return ApiResponse()

    # Desktop apps

    def list_apps(self) -> ApiResponse:
        """List all desktop apps of the user: the server ignores the session in the path."""
        status = self.get_parameter("status")
        everyones = self.get_parameter("view") == "all"
        sessions = self.platform.everyones() if everyones else self.platform.of_user(self.user)
        apps = [s for s in sessions if s.appid is not None and _matches(status, s.status)]
        if everyones:
            return _make_json_response([render.format_public_session(app) for app in apps])
        return self.respond_with_sessions(apps)

    def create_app(self) -> ApiResponse:
        spec = read_app_spec(self.request.parameters, self.service.offer)
        app = self.platform.create_app(self.user, self.id, spec, self.request.now)
        return _make_text_response(f"{app.appid}\n")

    def get_app(self) -> ApiResponse:
        app = self.platform.find(self.user, self.id, self.appid)
        if app is None:
            app_name = f"desktop app with session {self.id} and app ID {self.appid}"
            raise HTTPError(404, f"{app_name} was not found")
        return _make_json_response(render.format_session(app, self.service.origin))

    def modify_app(self) -> ApiResponse:
        raise HTTPError(400, "Cannot modify an existing desktop app")

    def delete_app(self) -> ApiResponse:
        self.platform.delete(self.user, self.id, self.request.now, self.appid)
        return ApiResponse()

    # The platform

    def list_images(self) -> ApiResponse:
        wanted = self.get_parameter("type")
        if wanted is None:
            return _make_json_response(list_images(None))
        try:
            return _make_json_response(list_images(Kind(wanted.lower())))
        except ValueError:
            raise HTTPError(400, f"unknown type: {wanted}") from None

    def get_context(self) -> ApiResponse:
        return _make_json_response(
            self.service.offer.format_context(self.platform.limit(self.user))
        )

    def list_registries(self) -> ApiResponse:
        return _make_json_response(list(REGISTRIES))

    def get_availability(self) -> ApiResponse:
        return ApiResponse(200, render.AVAILABILITY.encode(), _XML)

    def get_capabilities(self) -> ApiResponse:
        return ApiResponse(200, render.format_capabilities(self.service.base).encode(), _XML)


_PUBLIC_PATHS = (("availability",), ("capabilities",))
_ROUTES: dict[tuple[str, ...], dict[str, Callable[[_RequestHandler], ApiResponse]]] = {
    ("session",): {
        "GET": _RequestHandler.list_sessions,
        "POST": _RequestHandler.create_session,
        "DELETE": _RequestHandler.refuse_delete_all,
    },
    ("session", "*"): {
        "GET": _RequestHandler.get_session,
        "POST": _RequestHandler.modify_session,
        "DELETE": _RequestHandler.delete_session,
    },
    ("session", "*", "app"): {"GET": _RequestHandler.list_apps, "POST": _RequestHandler.create_app},
    ("session", "*", "app", "*"): {
        "GET": _RequestHandler.get_app,
        "POST": _RequestHandler.modify_app,
        "DELETE": _RequestHandler.delete_app,
    },
    ("image",): {"GET": _RequestHandler.list_images},
    ("context",): {"GET": _RequestHandler.get_context},
    ("repository",): {"GET": _RequestHandler.list_registries},
    ("availability",): dict.fromkeys(("GET", "HEAD"), _RequestHandler.get_availability),
    ("capabilities",): dict.fromkeys(("GET", "HEAD"), _RequestHandler.get_capabilities),
}
