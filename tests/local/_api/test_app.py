"""The ASGI application: logins, hosts, forms, pages and logs; without sockets."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from attrs import define

from kaleden.local import Platform, Settings
from kaleden.local._accounts import Accounts
from kaleden.local._api._app import MAX_FORM, RequestCounter, make_app
from kaleden.local._api._service import Service
from kaleden.local._platform._model import GIB
from local.worlds import IMAGE

BASE = "http://127.0.0.1:8080"
FORM = {"name": "n", "image": IMAGE}


@define
class Front:
    """An application, and a client of it that is logged in."""

    app: RequestCounter
    http: httpx.AsyncClient
    platform: Platform
    log: Path
    executions: list[str]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncGenerator[Front]:
    platform = Platform(Settings(millicores=4000, ram=64 * GIB), random.Random(0))
    executions: list[str] = []
    log = tmp_path / "log"
    accounts = Accounts(lambda: 1_790_000_000.0)
    accounts.add("ada")
    accounts.accept_token("secret", "ada")
    app = make_app(
        Service(platform, BASE, lambda _: log),
        accounts,
        clock=lambda: 1_790_000_000.0,
        execute_orders=lambda: executions.append("executed"),
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url=BASE,
        headers={"Authorization": "Bearer secret"},
    ) as http:
        yield Front(app, http, platform, log, executions)


async def test_a_call_goes_to_the_service_and_then_the_platform_settles(front: Front) -> None:
    reply = await front.http.post("/skaha/v1/session", data=FORM)
    assert (200, "text/plain") == (reply.status_code, reply.headers["content-type"])
    assert "ada" == reply.headers["x-vo-authenticated"]
    assert ["executed"] == front.executions
    assert [reply.text.strip()] == [session.id for session in front.platform.everyones()]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer secret", 200),
        ("bearer  secret ", 200),
        ("Bearer Secret", 401),
        ("Bearer secre", 401),
        ("Bearer", 401),
        ("Basic secret", 401),
        ("secret", 401),
        ("Bearer s\u00e9cret", 401),
        ("", 401),
    ],
)
async def test_the_token_opens(front: Front, header: str, status: int) -> None:
    headers = {"Authorization": header.encode("latin-1").decode("latin-1")}
    request = front.http.build_request("GET", "/skaha/v1/session")
    request.headers = httpx.Headers({"host": "127.0.0.1", **headers}, encoding="latin-1")
    reply = await front.http.send(request)
    assert status == reply.status_code
    assert 4 * (status == 401) == len(reply.headers.get_list("www-authenticate"))


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:99", 200), ("evil.example", 400), ("127.0.0.1.evil", 400)],
)
async def test_a_foreign_host_is_refused(front: Front, host: str, status: int) -> None:
    reply = await front.http.get("/skaha/v1/session", headers={"Host": host})
    assert status == reply.status_code


async def test_the_headers_that_peers_send_are_tolerated(front: Front) -> None:
    headers = {"X-Skaha-Authentication-Type": "OIDC", "X-Skaha-Registry-Auth": "dTpz"}
    reply = await front.http.post("/skaha/v1/session", data=FORM, headers=headers)
    assert 200 == reply.status_code
    bad = await front.http.post(
        "/skaha/v1/session", data=FORM, headers={"X-Skaha-Registry-Auth": "?"}
    )
    assert 400 == bad.status_code


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded;charset=UTF-8"],
)
async def test_query_and_form_are_merged(front: Front, content_type: str) -> None:
    reply = await front.http.post(
        "/skaha/v1/session",
        params={"NAME": "n"},
        content=b"image=images.canfar.net%2Fa%2Fb&name=ignored",
        headers={"Content-Type": content_type},
    )
    assert 200 == reply.status_code
    (session,) = front.platform.everyones()
    assert ("n", "images.canfar.net/a/b") == (session.spec.name, session.spec.image)


async def test_all_may_be_in_the_query(front: Front) -> None:
    reply = await front.http.post(
        "/skaha/v1/session", params=[*FORM.items(), ("env", "A=1"), ("env", "B=2")]
    )
    assert 200 == reply.status_code
    (session,) = front.platform.everyones()
    assert (("A", "1"), ("B", "2")) == session.spec.env


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
async def test_a_form_of_another_content_type_is_ignored(
    front: Front, headers: dict[str, str]
) -> None:
    reply = await front.http.post("/skaha/v1/session", content=b"image=x", headers=headers)
    assert (400, "Missing parameter 'image'\n") == (reply.status_code, reply.text)


async def test_a_form_in_parts_is_read(front: Front) -> None:
    files: list[tuple[str, Any]] = [(name, (None, value)) for name, value in FORM.items()]
    reply = await front.http.post("/skaha/v1/session", files=[*files, ("cmd", (None, "caf\u00e9"))])
    assert 200 == reply.status_code
    (session,) = front.platform.everyones()
    assert ("caf\u00e9",) == session.spec.command


async def test_parts_that_are_no_parts_are_no_parameters(front: Front) -> None:
    reply = await front.http.post(
        "/skaha/v1/session",
        content=b"--x\r\n\r\nno name\r\n--x--",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert (400, "Missing parameter 'image'\n") == (reply.status_code, reply.text)


async def test_a_form_that_is_too_big_is_refused(front: Front) -> None:
    big = {**FORM, "args": "x" * MAX_FORM}
    assert 413 == (await front.http.post("/skaha/v1/session", data=big)).status_code


async def test_a_target_that_is_too_long_is_refused(front: Front) -> None:
    assert 400 == (await front.http.get("/skaha/v1/session/" + 10_000 * "x")).status_code
    assert 400 == (await front.http.get("/skaha/v1/session?x=" + 10_000 * "x")).status_code


@pytest.mark.parametrize("path", ["/", "/skaha", "/session", "/what"])
async def test_other_paths_are_404(front: Front, path: str) -> None:
    assert 404 == (await front.http.get(path)).status_code


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "HEAD"])
async def test_other_methods_are_405(front: Front, method: str) -> None:
    reply = await front.http.request(method, "/skaha/v1/session")
    assert (405, "GET, POST, DELETE") == (reply.status_code, reply.headers["allow"])


async def test_a_log_is_read_from_its_file(front: Front) -> None:
    id_ = (await front.http.post("/skaha/v1/session", data=FORM)).text.strip()
    url = f"/skaha/v1/session/{id_}?view=logs"
    empty = await front.http.get(url)
    assert (200, b"", "text/plain") == (
        empty.status_code,
        empty.content,
        empty.headers["content-type"],
    )
    written = bytes(range(256)) * 1000
    await anyio.Path(front.log).write_bytes(written)
    assert written == (await front.http.get(url)).content


async def test_a_page_shows_a_session_that_runs_to_who_knows_its_id(front: Front) -> None:
    image = f"{IMAGE}<b>"
    reply = await front.http.post(
        "/skaha/v1/session", data={"name": "n", "image": image, "type": "notebook"}
    )
    info = (await front.http.get(f"/skaha/v1/session/{reply.text.strip()}")).json()
    page = await front.http.get(info["connectURL"], headers={"Authorization": ""})
    assert 200 == page.status_code
    assert page.headers["content-type"].startswith("text/html")
    assert "notebook session is Running" in page.text
    assert "&lt;b&gt;" in page.text

    await front.http.delete(f"/skaha/v1/session/{info['id']}")
    assert 404 == (await front.http.get(info["connectURL"])).status_code


async def test_requests_are_counted_and_so_is_the_most_at_a_time() -> None:
    arrived = 0
    all_there = anyio.Event()
    app = RequestCounter(lambda scope, receive, send: slow(scope, receive, send))

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == 3:
            all_there.set()
        await all_there.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as http:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(http.get, "/")
        await http.get("/")
    assert (4, 3, 0) == (app.requests, app.max_in_flight, app.in_flight)


async def test_a_request_is_answered_when_its_last_part_leaves_not_after() -> None:
    """A client that asks again at once is not seen as two requests at a time."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    app = RequestCounter(answer)
    seen = []

    async def send(message: Any) -> None:
        seen.append((message["type"], app.in_flight))

    await app({"type": "http"}, None, send)  # type: ignore[arg-type]
    assert [("http.response.start", 1), ("http.response.body", 0)] == seen
    assert 0 == app.in_flight


async def test_a_request_that_fails_is_not_in_flight_any_more() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise OSError

    app = RequestCounter(fail)
    with pytest.raises(OSError):  # noqa: PT011 - it is the one above
        await app({"type": "http"}, None, None)  # type: ignore[arg-type]
    assert (1, 0) == (app.requests, app.in_flight)
