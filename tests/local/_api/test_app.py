"""The ASGI application without sockets: authentication, hosts, forms, pages and logs."""

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
from support import FULL_IMAGE

BASE = "http://127.0.0.1:8080"
FORM = {"name": "n", "image": FULL_IMAGE}


@define
class AppClient:
    """An application, and its authenticated client."""

    app: RequestCounter
    http: httpx.AsyncClient
    platform: Platform
    log: Path
    executions: list[str]


@pytest.fixture
async def client(tmp_path: Path) -> AsyncGenerator[AppClient]:
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
        yield AppClient(app, http, platform, log, executions)


async def test_request_reaches_service_and_orders_are_executed(client: AppClient) -> None:
    response = await client.http.post("/skaha/v1/session", data=FORM)
    assert (200, "text/plain") == (response.status_code, response.headers["content-type"])
    assert "ada" == response.headers["x-vo-authenticated"]
    assert ["executed"] == client.executions
    assert [response.text.strip()] == [session.id for session in client.platform.everyones()]


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
async def test_authorization_header_is_checked(client: AppClient, header: str, status: int) -> None:
    headers = {"Authorization": header.encode("latin-1").decode("latin-1")}
    request = client.http.build_request("GET", "/skaha/v1/session")
    request.headers = httpx.Headers({"host": "127.0.0.1", **headers}, encoding="latin-1")
    response = await client.http.send(request)
    assert status == response.status_code
    assert 4 * (status == 401) == len(response.headers.get_list("www-authenticate"))


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1", 200), ("localhost:99", 200), ("evil.example", 400), ("127.0.0.1.evil", 400)],
)
async def test_unknown_host_is_rejected(client: AppClient, host: str, status: int) -> None:
    response = await client.http.get("/skaha/v1/session", headers={"Host": host})
    assert status == response.status_code


async def test_headers_of_other_clients_are_accepted(client: AppClient) -> None:
    headers = {"X-Skaha-Authentication-Type": "OIDC", "X-Skaha-Registry-Auth": "dTpz"}
    response = await client.http.post("/skaha/v1/session", data=FORM, headers=headers)
    assert 200 == response.status_code
    bad = await client.http.post(
        "/skaha/v1/session", data=FORM, headers={"X-Skaha-Registry-Auth": "?"}
    )
    assert 400 == bad.status_code


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded;charset=UTF-8"],
)
async def test_query_and_form_are_merged(client: AppClient, content_type: str) -> None:
    response = await client.http.post(
        "/skaha/v1/session",
        params={"NAME": "n"},
        content=b"image=images.canfar.net%2Fa%2Fb&name=ignored",
        headers={"Content-Type": content_type},
    )
    assert 200 == response.status_code
    (session,) = client.platform.everyones()
    assert ("n", "images.canfar.net/a/b") == (session.spec.name, session.spec.image)


async def test_query_may_contain_all_parameters(client: AppClient) -> None:
    response = await client.http.post(
        "/skaha/v1/session", params=[*FORM.items(), ("env", "A=1"), ("env", "B=2")]
    )
    assert 200 == response.status_code
    (session,) = client.platform.everyones()
    assert (("A", "1"), ("B", "2")) == session.spec.env


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
async def test_form_of_other_content_type_is_ignored(
    client: AppClient, headers: dict[str, str]
) -> None:
    response = await client.http.post("/skaha/v1/session", content=b"image=x", headers=headers)
    assert (400, "Missing parameter 'image'\n") == (response.status_code, response.text)


async def test_multipart_form_is_read(client: AppClient) -> None:
    files: list[tuple[str, Any]] = [(name, (None, value)) for name, value in FORM.items()]
    response = await client.http.post(
        "/skaha/v1/session", files=[*files, ("cmd", (None, "caf\u00e9"))]
    )
    assert 200 == response.status_code
    (session,) = client.platform.everyones()
    assert ("caf\u00e9",) == session.spec.command


async def test_invalid_multipart_parts_are_ignored(client: AppClient) -> None:
    response = await client.http.post(
        "/skaha/v1/session",
        content=b"--x\r\n\r\nno name\r\n--x--",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert (400, "Missing parameter 'image'\n") == (response.status_code, response.text)


async def test_form_too_large_gets_413(client: AppClient) -> None:
    big = {**FORM, "args": "x" * MAX_FORM}
    assert 413 == (await client.http.post("/skaha/v1/session", data=big)).status_code


async def test_target_too_long_gets_400(client: AppClient) -> None:
    assert 400 == (await client.http.get("/skaha/v1/session/" + 10_000 * "x")).status_code
    assert 400 == (await client.http.get("/skaha/v1/session?x=" + 10_000 * "x")).status_code


@pytest.mark.parametrize("path", ["/", "/skaha", "/session", "/what"])
async def test_unknown_path_gets_404(client: AppClient, path: str) -> None:
    assert 404 == (await client.http.get(path)).status_code


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "HEAD"])
async def test_unsupported_method_gets_405(client: AppClient, method: str) -> None:
    response = await client.http.request(method, "/skaha/v1/session")
    assert (405, "GET, POST, DELETE") == (response.status_code, response.headers["allow"])


async def test_log_is_read_from_file(client: AppClient) -> None:
    id_ = (await client.http.post("/skaha/v1/session", data=FORM)).text.strip()
    url = f"/skaha/v1/session/{id_}?view=logs"
    empty = await client.http.get(url)
    assert (200, b"", "text/plain") == (
        empty.status_code,
        empty.content,
        empty.headers["content-type"],
    )
    written = bytes(range(256)) * 1000
    await anyio.Path(client.log).write_bytes(written)
    assert written == (await client.http.get(url)).content


async def test_page_of_running_session_needs_only_its_id(client: AppClient) -> None:
    image = f"{FULL_IMAGE}<b>"
    response = await client.http.post(
        "/skaha/v1/session", data={"name": "n", "image": image, "type": "notebook"}
    )
    info = (await client.http.get(f"/skaha/v1/session/{response.text.strip()}")).json()
    page = await client.http.get(info["connectURL"], headers={"Authorization": ""})
    assert 200 == page.status_code
    assert page.headers["content-type"].startswith("text/html")
    assert "notebook session is Running" in page.text
    assert "&lt;b&gt;" in page.text

    await client.http.delete(f"/skaha/v1/session/{info['id']}")
    assert 404 == (await client.http.get(info["connectURL"])).status_code


async def test_request_counts_include_maximum_in_flight() -> None:
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


async def test_request_is_counted_as_done_before_last_part_is_sent() -> None:
    """A client that sends its next request at once never counts as two in flight."""

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


async def test_failed_request_is_not_in_flight() -> None:
    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise OSError

    app = RequestCounter(fail)
    with pytest.raises(OSError):  # noqa: PT011 - raised by `fail`
        await app({"type": "http"}, None, None)  # type: ignore[arg-type]
    assert (1, 0) == (app.requests, app.in_flight)
