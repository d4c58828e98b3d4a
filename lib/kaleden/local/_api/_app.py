"""The ASGI application of the embedded platform: it translates HTTP to calls of `Service`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from email.message import Message as MailMessage
from email.parser import BytesParser
from email.policy import HTTP
from html import escape
from pathlib import Path
from urllib.parse import parse_qsl

import anyio
from attrs import define, field, frozen
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaleden.local._accounts import Accounts
from kaleden.local._api._render import format_error_page
from kaleden.local._api._service import MAX_TARGET, ApiRequest, ApiResponse, Service
from kaleden.local._platform._create_params import Parameters
from kaleden.local._platform._model import HTTPError, Session, Status

MAX_FORM = 2 * 1024**2
_CHUNK = 65536
_FORM = "application/x-www-form-urlencoded"
_PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{name}</title></head>
<body>
<h1>{name}</h1>
<p>This {kind} session is {status}, with the image {image}.</p>
<p>The embedded platform shows this page instead of the real application.</p>
</body>
</html>
"""


@frozen
class Statistics:
    """Counts of a platform's requests, sessions and processes.

    Args:
        requests: the number of HTTP requests so far.
        in_flight: the number of requests in flight now.
        max_in_flight: the largest number of requests in flight at a time.
        sessions: the number of sessions, by status.
        processes: the number of sessions that have running processes.
    """

    requests: int
    in_flight: int
    max_in_flight: int
    sessions: dict[Status, int]
    processes: int


@define
class RequestCounter:
    """An ASGI middleware that counts requests and implements the lifespan protocol."""

    app: ASGIApp
    requests: int = field(init=False, default=0)
    in_flight: int = field(init=False, default=0)
    max_in_flight: int = field(init=False, default=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(receive, send)
            return
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        finished = False

        async def send_and_count(message: Message) -> None:
            # Count before the last part is sent: the client may then send its next request at once.
            nonlocal finished
            if message["type"] == "http.response.body" and not message.get("more_body"):
                finished = True
                self.in_flight -= 1
            await send(message)

        try:
            await self.app(scope, receive, send_and_count)
        finally:
            self.in_flight -= not finished


async def _run_lifespan(receive: Receive, send: Send) -> None:
    """Implement the lifespan protocol. Starlette's reports a cancellation as a failure."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@define
class _Endpoints:
    """The endpoints of the application's routes."""

    service: Service
    accounts: Accounts
    clock: Callable[[], float]
    execute_orders: Callable[[], None]

    async def handle_api_request(self, request: Request) -> Response:
        """Handle a request to the API."""
        path: bytes = request.scope["raw_path"]
        if len(path) + len(request.scope["query_string"]) > MAX_TARGET:
            return HTMLResponse(format_error_page("400: Bad Request"), 400)
        form = await _read_form(request)
        if form is None:
            return HTMLResponse(format_error_page("413: Request Entity Too Large"), 413)

        user, login_error = self._identify(request)
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        response = self.service.handle(
            ApiRequest(
                method=request.method,
                path=path.decode("latin-1").removeprefix("/skaha"),
                parameters=Parameters.from_pairs([*query, *form]),
                user=user,
                now=self.clock(),
                registry_secret=request.headers.get("x-skaha-registry-auth"),
                login_error=login_error,
            )
        )
        self.execute_orders()
        return _make_response(response)

    def _identify(self, request: Request) -> tuple[str | None, HTTPError | None]:
        """Return the user, by token or certificate, or the error if authentication failed."""
        tls = request.scope.get("extensions", {}).get("tls", {})
        subject: str | None = tls.get("client_cert_name")
        try:
            return self.accounts.identify(request.headers.get("authorization"), subject), None
        except HTTPError as error:
            return None, error

    async def get_session_page(self, request: Request) -> Response:
        """Return the page of an interactive session. Its id is the only secret needed."""
        self.service.platform.advance(self.clock())
        session = self.service.platform.anyones(request.path_params["id"])
        if session is None or session.status is not Status.RUNNING:
            return HTMLResponse(format_error_page("404: Not Found"), 404)
        return _make_session_page(session)


def _make_session_page(session: Session) -> Response:
    page = _PAGE.format(
        name=escape(session.spec.name),
        kind=escape(session.spec.kind),
        status=escape(session.status),
        image=escape(session.spec.image),
    )
    return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})


async def _read_form(request: Request) -> list[tuple[str, str]] | None:
    """Read the form: empty if it has another content type, None if it is too large."""
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if request.method != "POST" or media_type not in (_FORM, "multipart/form-data"):
        return []
    body = bytearray()
    async for chunk in request.stream():
        # Read to the end in any case: a client that is still sending could miss the response.
        if len(body) <= MAX_FORM:
            body += chunk
    if len(body) > MAX_FORM:
        return None
    if media_type == _FORM:
        return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
    return _read_multipart(content_type, bytes(body))


def _read_multipart(content_type: str, body: bytes) -> list[tuple[str, str]]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode("latin-1")
    parts = BytesParser(policy=HTTP).parsebytes(head + body).iter_parts()
    return [(name, _get_text(part)) for part in parts if (name := _get_name(part)) is not None]


def _get_name(part: MailMessage) -> str | None:
    name = part.get_param("name", header="content-disposition")
    return name if isinstance(name, str) else None


def _get_text(part: MailMessage) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _make_response(api_response: ApiResponse) -> Response:
    response: Response
    if api_response.file is None:
        response = Response(api_response.body, api_response.status)
    else:
        response = StreamingResponse(_read_log(api_response.file), api_response.status)
    if api_response.content_type is not None:
        response.headers["content-type"] = api_response.content_type
    for name, value in api_response.headers:
        response.headers.append(name, value)
    return response


async def _read_log(file: Path) -> AsyncIterator[bytes]:
    """Read the current content of a log, without text that is written meanwhile."""
    try:
        remaining = (await anyio.Path(file).stat()).st_size
        async with await anyio.open_file(file, "rb") as stream:
            while remaining > 0 and (chunk := await stream.read(min(remaining, _CHUNK))):
                remaining -= len(chunk)
                yield chunk
    except FileNotFoundError:
        return


def make_app(
    service: Service,
    accounts: Accounts,
    *,
    clock: Callable[[], float],
    execute_orders: Callable[[], None] = lambda: None,
) -> RequestCounter:
    """Make the ASGI application.

    It calls *execute_orders* after each request to the API. *clock* returns seconds since the
    epoch.
    """
    endpoints = _Endpoints(service, accounts, clock, execute_orders)
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    routes = [
        Route("/skaha/{path:path}", endpoints.handle_api_request, methods=methods),
        Route("/session/{kind}/{id}/{path:path}", endpoints.get_session_page),
    ]
    # DNS rebinding: a web page must not reach the platform through the user's browser.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app = Starlette(routes=routes, middleware=[hosts])
    app.router.redirect_slashes = False
    return RequestCounter(app)
