"""The methods of AsyncSession, against a server inside the test."""

from __future__ import annotations

import logging
import re
import webbrowser
from collections.abc import Iterable
from typing import Any, assert_type
from urllib.parse import parse_qsl

import anyio
import pytest
from anyio.lowlevel import checkpoint

import kaleden
from kaleden import Failure, FailureKind, InvalidRequest, SessionSpec, SessionStatus
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from support import FULL_IMAGE, Reply, data, described, session_id, session_object, session_on, text
from virtual_time import in_virtual_time


def make_server(sessions: Iterable[dict[str, Any]], *, deletes: bool = True) -> Reply:
    """Make a server with *sessions*; without *deletes*, its deletes have no effect."""
    by_id = {session["id"]: session for session in sessions}

    async def reply(request: Request) -> Response:
        key = session_id(request)
        if request.method == "DELETE":
            if deletes:
                by_id.pop(key, None)
            return text("")
        if request.target.startswith("session/"):
            return data(by_id[key]) if key in by_id else text(f"session {key} not found", 404)
        return data(list(by_id.values()))

    return reply


# --- single requests -----------------------------------------------------------------------------


async def test_fetch_lists_sessions_in_one_request() -> None:
    session, transport = session_on(make_server([session_object("a"), session_object("b")]))
    async with session:
        assert ["a", "b"] == [info.id for info in await session.fetch()]
        await session.fetch(kind="headless", status="Running")
        await session.fetch(view="all")
    assert [
        "session",
        "session?type=headless&status=Running",
        "session?view=all",
    ] == transport.targets


async def test_fetch_leaves_out_and_logs_elements_that_are_not_sessions(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reply(_: Request) -> Response:
        return data([session_object("a"), "surprise", None, session_object("b")])

    session, _ = session_on(reply)
    async with session:
        assert ["a", "b"] == [info.id for info in await session.fetch()]
    assert "surprise" in caplog.text


@pytest.mark.parametrize(
    "arguments", [{"kind": "headles"}, {"status": "Runing"}, {"view": "stats"}]
)
async def test_fetch_refuses_a_filter_that_matches_nothing(arguments: dict[str, Any]) -> None:
    session, transport = session_on(described)
    async with session:
        with pytest.raises(InvalidRequest):
            await session.fetch(**arguments)
    assert [] == transport.requests


async def test_failed_single_request_raises_its_error() -> None:
    async def refused(_: Request) -> Response:
        return text("Not authorized to use the skaha system", 403)

    session, _ = session_on(refused)
    async with session:
        for call in (
            session.fetch,
            session.stats,
            session.images,
            session.context,
            session.repositories,
            session.availability,
        ):
            with pytest.raises(
                kaleden.NotAuthorized, match="Not authorized to use the skaha"
            ) as caught:
                await call()
            assert 403 == caught.value.failure.status


async def test_fetch_raises_protocol_error_for_an_object_instead_of_a_list() -> None:
    async def reply(_: Request) -> Response:
        return data({"oops": 1})

    session, _ = session_on(reply)
    async with session:
        with pytest.raises(kaleden.ProtocolError):
            await session.fetch()


async def test_apps_returns_only_those_of_the_given_desktop() -> None:
    async def reply(request: Request) -> Response:
        assert "session/desk1/app" == request.target
        return data(
            [
                session_object("desk1", type="desktop-app", appid="abc"),
                session_object("desk2", type="desktop-app", appid="xyz"),
            ]
        )

    session, _ = session_on(reply)
    async with session:
        assert ["abc"] == [app.app_id for app in await session.apps("desk1")]
        with pytest.raises(InvalidRequest):
            await session.apps("../x")


# --- logs and events -----------------------------------------------------------------------------


async def test_verbose_logs_the_outcomes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kaleden")

    async def reply(request: Request) -> Response:
        if request.target == "session":
            return data([session_object("a")])
        if session_id(request) == "b":
            return text("session b not found.", 404)
        return text("hello\n")

    session, _ = session_on(reply)
    async with session:
        outcomes = await session.logs(["a", "b"], verbose=True)
        await session.events("b", verbose=True)
    assert {"a": "hello\n"} == outcomes.successes
    assert "logs of a: hello" in caplog.text
    assert "events of b: the server lists no session with this id" in caplog.text


# --- create --------------------------------------------------------------------------------------


async def create_every_session(request: Request) -> Response:
    if request.method == "GET":
        return data([])
    fields = dict(parse_qsl(request.form.decode()))
    return text(f"id-of-{fields['name']}\n")


async def test_each_replica_is_one_form_with_its_number() -> None:
    session, transport = session_on(create_every_session, create_concurrency=1)
    async with session:
        created = await session.create(
            "fits",
            FULL_IMAGE,
            cores=2,
            ram=4,
            cmd="python",
            args="reduce.py now",
            env={"A": "1"},
            replicas=3,
        )
    assert {f"fits-{n}": f"id-of-fits-{n}" for n in (1, 2, 3)} == created.successes
    assert ["id-of-fits-1", "id-of-fits-2", "id-of-fits-3"] == created.ids
    listed, *posts = transport.requests
    assert "GET" == listed.method
    assert {("POST", "session")} == {(request.method, request.target) for request in posts}
    fields = parse_qsl(posts[1].form.decode())
    for pair in (
        ("name", "fits-2"),
        ("image", FULL_IMAGE),
        ("cmd", "python"),
        ("args", "reduce.py now"),
    ):
        assert pair in fields
    assert {"A=1", "REPLICA_ID=2", "REPLICA_COUNT=3"} == {
        value for key, value in fields if key == "env"
    }


async def test_creates_have_a_smaller_limit_and_a_longer_timeout() -> None:
    async def slow(request: Request) -> Response:
        for _ in range(5):
            await checkpoint()
        return await create_every_session(request)

    session, transport = session_on(slow, concurrency=32, create_concurrency=3, timeout=1e-9)
    async with session:
        assert (await session.create("fits", FULL_IMAGE, replicas=20)).ok
    assert 3 == transport.most_in_flight


async def test_spec_excludes_other_arguments() -> None:
    spec = SessionSpec("fits", FULL_IMAGE, replicas=2)
    session, _ = session_on(create_every_session)
    async with session:
        assert ["fits-1", "fits-2"] == [outcome.key for outcome in await session.create(spec)]
        for more in ({"image": FULL_IMAGE}, {"cores": 2}, {"replicas": 3}, {"env": {"A": "1"}}):
            with pytest.raises(InvalidRequest, match="SessionSpec is complete"):
                await session.create(spec, **more)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": ""},
        {"name": "x" * 64},
        {"name": "x" * 62, "replicas": 10},
        {"name": "Upper"},
        {"name": "under_score"},
        {"name": "-edge"},
        {"name": "edge-"},
        {"image": None},
        {"image": "no spaces/please"},
        {"replicas": 0},
        {"replicas": 10**6},
        {"cores": -1},
        {"cores": float("nan")},
        {"ram": 0},
        {"gpu": 0},
        {"kind": "headles"},
        {"cmd": "python x.py"},
        {"args": 'say "hi"'},
        {"args": "two  spaces"},
        {"args": ["a b"]},
        {"env": {"A": "b=c"}},
        {"env": {"A": ""}},
        {"env": {"A": "$HOME"}},
        {"env": {"": "x"}},
        {"kind": "notebook", "cmd": "python"},
    ],
    ids=str,
)
async def test_create_refuses_arguments_that_the_server_would_drop_or_change(
    arguments: dict[str, Any],
) -> None:
    session, transport = session_on(create_every_session)
    async with session:
        with pytest.raises(InvalidRequest):
            await session.create(**{"name": "fits", "image": FULL_IMAGE, **arguments})
    assert [] == transport.requests


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (text("unexpected exception: boom", 500), "unknown_effect"),
        (text("", 502), "unknown_effect"),
        (text("", 200), "unknown_effect"),
        (text("<html>login</html>", 200), "unknown_effect"),
        (TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True), "unknown_effect"),
        (TransportError(FailureKind.CONNECT_FAILED, "refused", sent=False), "connect_failed"),
        (RuntimeError("a bug"), "unknown_effect"),
        (text("Invalid value for 'cores': 99", 400), "bad_request"),
        (text("User u has reached the maximum of 3 active sessions.", 400), "quota"),
        (text("try later", 503), "unavailable"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_failed_create_reports_whether_a_session_may_exist(
    reply: Response | Exception, kind: str
) -> None:
    async def respond(request: Request) -> Response:
        if b"fits-2" not in request.form:
            return await create_every_session(request)
        if isinstance(reply, Exception):
            raise reply
        return reply

    session, transport = session_on(respond, settle=0.01)
    async with session:
        created = await session.create("fits", FULL_IMAGE, replicas=3)
    assert {"fits-2": kind} == {key: failure.kind for key, failure in created.failures.items()}
    assert ["id-of-fits-1", "id-of-fits-3"] == created.ids
    assert 3 == sum(request.method == "POST" for request in transport.requests)


async def test_interrupted_launch_logs_its_sessions(caplog: pytest.LogCaptureFixture) -> None:
    async def respond(request: Request) -> Response:
        if b"fits-2" in request.form:
            await anyio.sleep_forever()
        return await create_every_session(request)

    session, transport = session_on(respond, create_grace=0.01)
    async with session, anyio.create_task_group() as group:
        group.start_soon(
            session.create, "fits", FULL_IMAGE, None, None, "headless", None, None, None, None, 3
        )
        while transport.in_flight != 1 or len(transport.requests) < 4:
            await checkpoint()
        group.cancel_scope.cancel()
    assert "['id-of-fits-1', 'id-of-fits-3'] were created" in caplog.text
    assert "['fits-2'] may have been" in caplog.text


async def test_interrupted_launch_logs_only_unconfirmed_names_if_none_was_created(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def respond(request: Request) -> Response:
        if request.method == "POST":
            await anyio.sleep_forever()
        return await create_every_session(request)

    session, transport = session_on(respond, create_grace=0.01)
    async with session, anyio.create_task_group() as group:
        group.start_soon(session.create, "fits", FULL_IMAGE)
        while transport.in_flight != 1 or len(transport.requests) < 2:
            await checkpoint()
        group.cancel_scope.cancel()
    assert ["a launch was interrupted: sessions with the names ['fits'] may have been created"] == (
        caplog.messages
    )


async def test_launch_cancelled_before_it_was_sent_logs_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, transport = session_on(create_every_session)
    async with session:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await session.create("fits", FULL_IMAGE)
    assert ([], "") == (transport.requests, caplog.text)


# --- destroy -------------------------------------------------------------------------------------


@in_virtual_time
async def test_destroy_verifies_with_later_lists() -> None:
    sessions = [session_object("a"), session_object("b"), session_object("c")]
    session, transport = session_on(make_server(sessions))
    async with session:
        began = anyio.current_time()
        outcomes = await session.destroy(["a", "b", "never-was"])
        assert 1 <= anyio.current_time() - began < 2
    assert {"a": True, "b": True, "never-was": False} == outcomes.successes
    assert outcomes.ok
    methods = [request.method for request in transport.requests]
    assert ["GET", "DELETE", "DELETE", "DELETE", "GET"] == methods[:5]
    assert {"GET"} == set(methods[5:])
    assert "session" == transport.targets[-1]


@in_virtual_time
async def test_name_where_an_id_is_due_is_refused_with_the_id() -> None:
    sessions = [session_object("a", name="fits-1"), session_object("b", name="fits-2-k3x5q2ab")]
    session, transport = session_on(make_server(sessions))
    async with session:
        failures = (await session.destroy(["fits-1", "fits-2", "fits-2-k3x5q2ab"])).failures
        assert {FailureKind.INVALID} == {failure.kind for failure in failures.values()}
        assert ["session a", "session b", "session b"] == [
            failure.message.removesuffix(": give the id")[-9:] for failure in failures.values()
        ]
    assert ["GET"] == [request.method for request in transport.requests]


@in_virtual_time
async def test_destroy_detects_deletes_without_effect() -> None:
    sessions = [
        session_object("a"),
        session_object("b", status="Terminating"),
        session_object("c", status="Completed"),
    ]
    session, _ = session_on(make_server(sessions, deletes=False))
    async with session:
        outcomes = await session.destroy(["a", "b", "c"])
    # Those that have ended need not be proved absent.
    assert ["b", "c"] == list(outcomes.successes)
    assert {FailureKind.NOT_DESTROYED} == {failure.kind for failure in outcomes.failures.values()}
    assert "still lists the session as Running" in outcomes.failures["a"].message
    with pytest.raises(kaleden.BatchError) as caught:
        outcomes.raise_on_failure()
    assert isinstance(caught.value.exceptions[0], kaleden.NotDestroyed)


async def test_destroy_without_a_list_proves_nothing() -> None:
    async def reply(request: Request) -> Response:
        return text("") if request.method == "DELETE" else text("busy", 503)

    session, _ = session_on(reply)
    async with session:
        [outcome] = await session.destroy("a")
    assert isinstance(outcome, Failure)
    assert (FailureKind.NOT_DESTROYED, 503) == (outcome.kind, outcome.status)
    assert "busy" in outcome.message


@pytest.mark.parametrize(
    "delete_result",
    [
        TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True),
        TransportError(FailureKind.TIMED_OUT, "slow", sent=True),
        text("boom", 500),
        text("a", 404),
    ],
    ids=["lost", "slow", "boom", "unknown"],
)
async def test_list_decides_about_a_delete_without_a_usable_response(
    delete_result: Response | Exception,
) -> None:
    listed: list[dict[str, Any]] = []

    async def reply(request: Request) -> Response:
        if request.method == "GET":
            return data(listed)
        if isinstance(delete_result, Exception):
            raise delete_result
        return delete_result

    session, _ = session_on(reply)
    async with session:
        assert {"a": False} == (await session.destroy("a")).successes
        listed.append(session_object("a"))
        [failure] = (await session.destroy("a")).failures.values()
    assert failure.kind in {"connection_lost", "timed_out", "server_error", "not_found"}


async def test_refused_delete_needs_no_later_list() -> None:
    async def reply(_: Request) -> Response:
        return text("not yours", 403)

    session, transport = session_on(reply)
    async with session:
        outcomes = await session.destroy(["a", "b/c"])
        assert ["not_authorized", "invalid"] == [
            failure.kind for failure in outcomes.failures.values()
        ]
        methods = ["GET", "DELETE"]
        assert methods == [request.method for request in transport.requests]
        assert 0 == len(await session.destroy([]))
        assert {"b/c": "invalid"} == {
            key: failure.kind for key, failure in (await session.destroy("b/c")).failures.items()
        }
        assert methods == [request.method for request in transport.requests]


@pytest.mark.parametrize("listed", [[None], ["x"], [{}], [{"id": 12345678}]])
async def test_malformed_list_proves_nothing(listed: list[object]) -> None:
    async def reply(request: Request) -> Response:
        return text("") if request.method == "DELETE" else data(listed)

    session, _ = session_on(reply, settle=0.01)
    async with session:
        [failure] = (await session.destroy("a")).failures.values()
    assert FailureKind.NOT_DESTROYED == failure.kind
    assert "cannot be identified" in failure.message


@in_virtual_time
async def test_retried_destroy_verifies_again() -> None:
    session, transport = session_on(make_server([session_object("a")], deletes=False))
    async with session:
        outcomes = await session.destroy(["a"])
        transport.reply = make_server([session_object("a")])
        assert (await outcomes.retry_failed()).ok


# --- destroy_with --------------------------------------------------------------------------------

NAMED = [
    session_object("a", name="fits-1", status="Completed"),
    session_object("b", name="fits-2", status="Succeeded"),
    session_object("c", name="fits-3", status="Running"),
    session_object("d", name="unfit-1", status="Completed"),
]


@pytest.mark.parametrize(
    ("arguments", "ids"),
    [
        (("fits",), ["a", "b"]),
        (("FITS-",), ["a", "b"]),
        (("fits", "headless", "Running"), ["c"]),
        (("fits", "headless", None), ["a", "b", "c"]),
        ((re.compile("(un)?fit"),), ["a", "b", "d"]),
        (("its",), []),
    ],
    ids=str,
)
async def test_destroy_with_ends_sessions_by_the_beginning_of_their_names(
    arguments: tuple[Any, ...], ids: list[str]
) -> None:
    session, transport = session_on(make_server(NAMED))
    async with session:
        assert ids == list((await session.destroy_with(*arguments)).successes)
    assert "session?type=headless" == transport.targets[0]


@pytest.mark.parametrize("prefix", ["", "fits.*", "fits_", "a b", 5, None])
async def test_destroy_with_refuses_a_prefix_that_no_name_has(prefix: Any) -> None:
    session, transport = session_on(make_server(NAMED))
    async with session:
        with pytest.raises(InvalidRequest, match=r"re\.compile"):
            await session.destroy_with(prefix)
    assert [] == transport.requests


async def test_destroy_with_refuses_an_unknown_status() -> None:
    session, transport = session_on(make_server(NAMED))
    async with session:
        with pytest.raises(InvalidRequest, match="Complted"):
            await session.destroy_with("fits", status="Complted")
    assert [] == transport.requests


# --- connect -------------------------------------------------------------------------------------


async def test_connect_opens_only_pages_of_running_sessions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []

    def open_new_tab(url: str) -> bool:
        opened.append(url)
        return "broken" not in url

    monkeypatch.setattr(webbrowser, "open_new_tab", open_new_tab)
    page = "https://host/session/notebook/a"
    sessions = [
        session_object("a", type="notebook", connectURL=page),
        session_object("b", type="notebook", connectURL=page, status="Pending"),
        session_object("c", connectURL=""),
        session_object("d", type="notebook", connectURL="https://broken"),
        session_object("e", type="notebook", connectURL="file:///etc/passwd"),
    ]
    session, _ = session_on(make_server(sessions))
    async with session:
        outcomes = await session.connect(["a", "b", "c", "d", "e", "unknown"])
    assert {"a": page} == outcomes.successes
    assert [page, "https://broken"] == opened
    failed = {key: failure.kind for key, failure in outcomes.failures.items()}
    assert dict.fromkeys("bcde", "not_opened") | {"unknown": "not_found"} == failed
    assert SessionStatus.PENDING in outcomes.failures["b"].message


async def test_statistics_with_a_transport_of_the_caller() -> None:
    session, _ = session_on(described, concurrency=3)
    async with session:
        statistics = session.statistics()
        assert (3, 0, 0) == (
            statistics.limiter.limit,
            statistics.limiter.in_flight,
            statistics.limiter.waiting,
        )
        assert statistics.transport is None
        assert "<AsyncSession own transport: <Limiter 0/3 in flight, 0 waiting>>" == repr(session)


# --- raw -----------------------------------------------------------------------------------------


async def test_raw_info_returns_the_objects_of_the_server() -> None:
    session, _ = session_on(described)
    async with session:
        outcomes = await session.info(["a", "b"], raw=True)
        assert_type(outcomes, kaleden.Outcomes[dict[str, Any]])
        async with session.stream.info(["a"], raw=True) as results:
            [streamed] = [outcome async for outcome in results]
    assert [session_object("a"), session_object("b")] == outcomes.values
    assert outcomes["a"] == streamed
    assert "<Outcomes raw info: 2 ok>" == repr(outcomes)
    assert outcomes == kaleden.Outcomes.from_json(outcomes.to_json())


@pytest.mark.parametrize("odd", [{"id": "other"}, {"id": 7}, {}, []])
async def test_raw_info_about_another_session_is_a_failure(odd: Any) -> None:
    async def reply(_: Request) -> Response:
        return data(odd)

    session, _ = session_on(reply)
    async with session:
        [failure] = await session.info("mine", raw=True)
    assert isinstance(failure, Failure)
    assert FailureKind.PROTOCOL == failure.kind


async def test_raw_fetch_returns_the_objects_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reply(_: Request) -> Response:
        return data([session_object("a"), None, {}])

    session, _ = session_on(reply)
    async with session:
        assert [session_object("a"), {}] == await session.fetch(raw=True)
        assert ["a", ""] == [info.id for info in await session.fetch()]
    assert 2 == caplog.text.count("[None]") + caplog.text.count("(None,)")
