"""The embedded platform's ASGI application: HTTP on the outside, `Service` on the inside."""

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
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kaleden.local._accounts import Accounts
from kaleden.local._api import _openapi
from kaleden.local._api._service import MAX_TARGET, Call, Reply, Service
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
<p>It runs on an embedded platform, which has this page in place of the real thing.</p>
</body>
</html>
"""


@frozen
class Statistics:
    """What a platform has seen and has now.

    Args:
        requests: HTTP requests so far.
        in_flight: requests that are being answered.
        max_in_flight: the most that were at a time.
        sessions: how many there are, by status.
        processes: how many sessions have processes that live.
    """

    requests: int
    in_flight: int
    max_in_flight: int
    sessions: dict[Status, int]
    processes: int


@define
class Traffic:
    """An ASGI middleware that counts requests, and speaks the lifespan protocol.

    Args:
        app: who answers.
    """

    app: ASGIApp
    requests: int = field(init=False, default=0)
    in_flight: int = field(init=False, default=0)
    max_in_flight: int = field(init=False, default=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        answered = False

        async def count_answer(message: Message) -> None:
            # Before its last part leaves: the client may ask again as soon as it has that.
            nonlocal answered
            if message["type"] == "http.response.body" and not message.get("more_body"):
                answered = True
                self.in_flight -= 1
            await send(message)

        try:
            await self.app(scope, receive, count_answer)
        finally:
            self.in_flight -= not answered


async def _live(receive: Receive, send: Send) -> None:
    """Speak the lifespan protocol. Starlette's own reports a cancellation as a failure."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


@define
class _Endpoints:
    """What the application's routes lead to."""

    service: Service
    accounts: Accounts
    clock: Callable[[], float]
    settle: Callable[[], None]

    async def api(self, request: Request) -> Response:
        """Answer a call of the API."""
        path: bytes = request.scope["raw_path"]
        if len(path) + len(request.scope["query_string"]) > MAX_TARGET:
            return _page("HTTP Status 400: Bad Request", 400)
        form = await _read_form(request)
        if form is None:
            return _page("HTTP Status 413: Request Entity Too Large", 413)

        user, refused = self._identify(request)
        query = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        reply = self.service.handle(
            Call(
                method=request.method,
                path=path.decode("latin-1").removeprefix("/skaha"),
                parameters=Parameters.of([*query, *form]),
                user=user,
                now=self.clock(),
                registry_secret=request.headers.get("x-skaha-registry-auth"),
                refused=refused,
            )
        )
        self.settle()
        return _response(reply)

    def _identify(self, request: Request) -> tuple[str | None, HTTPError | None]:
        """Who asks, by token or certificate; or why we do not talk to them."""
        tls = request.scope.get("extensions", {}).get("tls", {})
        subject: str | None = tls.get("client_cert_name")
        try:
            return self.accounts.identify(request.headers.get("authorization"), subject), None
        except HTTPError as refused:
            return None, refused

    async def document(self, _: Request) -> Response:
        """Tell what the API answers, as OpenAPI; anybody may ask."""
        return JSONResponse(_openapi.describe(self.service.base))

    async def session_page(self, request: Request) -> Response:
        """Show an interactive session's page; who knows its id may see it."""
        self.service.platform.advance(self.clock())
        session = self.service.platform.anyones(request.path_params["id"])
        if session is None or session.status is not Status.RUNNING:
            return _page("HTTP Status 404: Not Found", 404)
        return _session_page(session)


def _page(title: str, status: int) -> Response:
    text = escape(title)
    return HTMLResponse(f"<!doctype html><title>{text}</title><h1>{text}</h1>", status)


def _session_page(session: Session) -> Response:
    page = _PAGE.format(
        name=escape(session.spec.name),
        kind=escape(session.spec.kind),
        status=escape(session.status),
        image=escape(session.spec.image),
    )
    return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})


async def _read_form(request: Request) -> list[tuple[str, str]] | None:
    """Read the form; empty without one of the right content type, None if it is too big."""
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    if request.method != "POST" or media_type not in (_FORM, "multipart/form-data"):
        return []
    body = bytearray()
    async for chunk in request.stream():
        # Read to the end in any case: a client that is still sending would miss the answer.
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
    return [(name, _text_of(part)) for part in parts if (name := _name_of(part)) is not None]


def _name_of(part: MailMessage) -> str | None:
    name = part.get_param("name", header="content-disposition")
    return name if isinstance(name, str) else None


def _text_of(part: MailMessage) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""


def _response(reply: Reply) -> Response:
    response: Response
    if reply.file is None:
        response = Response(reply.body, reply.status)
    else:
        response = StreamingResponse(_read(reply.file), reply.status)
    if reply.content_type is not None:
        response.headers["content-type"] = reply.content_type
    for name, value in reply.headers:
        response.headers.append(name, value)
    return response


async def _read(file: Path) -> AsyncIterator[bytes]:
    """Read what is in a log now; what is written meanwhile comes with the next request."""
    try:
        left = (await anyio.Path(file).stat()).st_size
        async with await anyio.open_file(file, "rb") as stream:
            while left > 0 and (chunk := await stream.read(min(left, _CHUNK))):
                left -= len(chunk)
                yield chunk
    except FileNotFoundError:
        return


def make_app(
    service: Service,
    accounts: Accounts,
    *,
    clock: Callable[[], float],
    settle: Callable[[], None] = lambda: None,
) -> Traffic:
    """Make the ASGI application.

    Args:
        service: the API.
        accounts: who may use it.
        clock: gives seconds since the epoch.
        settle: called after each call of the API, to have the platform's orders carried out.
    """
    endpoints = _Endpoints(service, accounts, clock, settle)
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
    routes = [
        Route("/skaha/openapi.json", endpoints.document),
        Route("/skaha/{path:path}", endpoints.api, methods=methods),
        Route("/session/{kind}/{id}/{path:path}", endpoints.session_page),
    ]
    # A page that a foreign name leads to must not reach the platform by way of the browser.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app = Starlette(routes=routes, middleware=[hosts])
    app.router.redirect_slashes = False
    return Traffic(app)
