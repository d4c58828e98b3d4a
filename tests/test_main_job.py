"""Launching, watching and ending sessions on the embedded platform, with sockets and processes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from attrs import evolve

pytest.importorskip("anycorn")

import kaleden
from kaleden import Failure, FailureKind, Outcome, Outcomes, SessionInfo, SessionStatus
from kaleden.local import LocalPlatform
from support import IMAGE, PLAIN_BACKENDS


@pytest.fixture
async def platform() -> AsyncIterator[LocalPlatform]:
    async with LocalPlatform() as platform:
        yield platform


@pytest.fixture
async def session(platform: LocalPlatform) -> AsyncIterator[kaleden.AsyncSession]:
    async with kaleden.AsyncSession(platform.url, platform.token) as session:
        yield session


async def wait_until_ended(
    session: kaleden.AsyncSession, ids: Outcomes[str]
) -> Outcomes[SessionInfo]:
    """Poll until every session has ended."""
    with anyio.fail_after(60):
        while True:
            infos = await session.info(ids)
            if all(info.status.is_terminal for info in infos.values):
                return infos
            await anyio.sleep(0.05)


async def test_sessions_are_launched_watched_read_and_ended(
    platform: LocalPlatform, session: kaleden.AsyncSession
) -> None:
    # An argument cannot contain a space, so the program is a single expression.
    number = "__import__('os').environ['REPLICA_ID']"
    program = f"__import__('sys').exit(print('replica',{number})or({number}=='2'))"
    created = await session.create("fits", IMAGE, cmd="python3", args=["-c", program], replicas=3)
    assert ["fits-1", "fits-2", "fits-3"] == [outcome.key for outcome in created.raise_on_failure()]

    infos = await wait_until_ended(session, created)
    assert [SessionStatus.COMPLETED, SessionStatus.FAILED, SessionStatus.COMPLETED] == [
        info.status for info in infos.values
    ]
    assert ["fits-1", "fits-2", "fits-3"] == [info.name for info in infos.values]
    assert [f"replica {n}\n" for n in (1, 2, 3)] == (await session.logs(created)).values
    assert all(
        "Started" in {event.reason for event in events}
        for events in (await session.events(created)).values
    )

    assert {info.id for info in await session.fetch()} == set(created.ids)
    assert {"fits-1", "fits-3"} == {info.name for info in await session.fetch(status="Completed")}
    assert ["bad_request"] * 3 == [
        failure.kind for failure in (await session.renew(created)).failures.values()
    ]

    assert set(created.ids[::2]) == set((await session.destroy_with("fits")).ids)
    assert (await session.destroy(created)).ok
    assert [] == await session.fetch()
    assert 0 == platform.statistics().processes


async def test_platform_is_described(session: kaleden.AsyncSession) -> None:
    assert (await session.availability()).available
    assert await session.repositories()
    assert {image.id for image in await session.images("notebook")} < {
        image.id for image in await session.images()
    }
    context = await session.context()
    assert 4 in context.cores.options
    stats = await session.stats()
    assert stats.cores.available
    assert [] == await session.fetch(view="interactive")


async def test_wrong_token_fails(platform: LocalPlatform) -> None:
    async with kaleden.AsyncSession(platform.url, "wrong") as session:
        with pytest.raises(kaleden.NotAuthenticated):
            await session.fetch()
        created = await session.create("fits", IMAGE)
        assert [FailureKind.NOT_AUTHENTICATED] == list(created.counts())


async def test_error_messages_of_platform_are_kept(session: kaleden.AsyncSession) -> None:
    created = await session.create("fits", "elsewhere.example/skaha/astroml:latest")
    assert "must come from one of" in created.failures["fits"].message
    notebooks = await session.create("lab", IMAGE, kind="notebook", replicas=8)
    assert {FailureKind.QUOTA} == set(notebooks.counts())
    assert "maximum" in next(iter(notebooks.failures.values())).message
    assert (await session.destroy(notebooks)).ok


async def test_new_desktop_has_no_apps(session: kaleden.AsyncSession) -> None:
    created = (
        await session.create("desk", "skaha/desktop:latest", kind="desktop")
    ).raise_on_failure()
    assert [] == await session.apps(created.ids[0])
    assert (await session.destroy(created)).ok


def without_usage(outcome: Outcome[SessionInfo]) -> Outcome[SessionInfo]:
    """Remove the measured use of resources, which changes while a session runs."""
    if isinstance(outcome, Failure):
        return outcome

    return evolve(outcome, value=evolve(outcome.value, cores_in_use=None, ram_in_use=None))


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_thousand_ids_with_every_tenth_unknown() -> None:
    concurrency = 16
    async with (
        # One core: only one session runs, and the others stay Pending, without a process.
        LocalPlatform(cores=1) as platform,
        kaleden.AsyncSession(platform.url, platform.token, concurrency=concurrency) as session,
    ):
        created = await session.create(
            "many", IMAGE, cores=1, ram=1, cmd="sleep", args="600", replicas=900
        )
        known = iter(created.raise_on_failure().ids)
        ids = [f"unknown{n}" if n % 10 == 0 else next(known) for n in range(1000)]
        infos = await session.info(ids)
        assert ids == [outcome.key for outcome in infos]
        assert (900, 100) == (len(infos.successes), len(infos.failures))
        for key, failure in infos.failures.items():
            assert (FailureKind.NOT_FOUND, 404) == (failure.kind, failure.status)
            assert f"session {key} not found" == failure.message
        assert platform.statistics().max_in_flight <= concurrency

        async with session.stream.info(ids) as results:
            streamed = {outcome.key: without_usage(outcome) async for outcome in results}
        assert {outcome.key: without_usage(outcome) for outcome in infos} == streamed
        assert (await session.destroy(created)).ok


async def test_outcomes_are_equal_on_every_backend(anyio_backend_name: str) -> None:
    """The expected outcomes are literals; times are not compared."""
    async with (
        LocalPlatform() as platform,
        kaleden.AsyncSession(platform.url, platform.token) as session,
    ):
        created = await session.create("same", IMAGE, cmd="echo", args="hello", replicas=2)
        first, second = created.ids
        await wait_until_ended(session, created)
        logs = await session.logs([first, "no/id", second, first])
        renewed = await session.renew(["unknown1"])
        destroyed = await session.destroy([first, second])
    expected = Outcomes[str](
        "logs",
        [
            kaleden.Success(first, "hello\n"),
            kaleden.Failure(
                "no/id", FailureKind.INVALID, logs.failures["no/id"].message, attempts=0
            ),
            kaleden.Success(second, "hello\n"),
        ],
    )
    assert expected == logs
    assert FailureKind.NOT_FOUND is renewed.failures["unknown1"].kind
    assert (
        Outcomes("destroy", [kaleden.Success(first, True), kaleden.Success(second, True)])
        == destroyed
    )


async def test_apps_of_desktop_are_waited_for_by_app_id(
    platform: LocalPlatform, session: kaleden.AsyncSession
) -> None:
    created = await session.create("desk", "skaha/desktop:latest", kind="desktop")
    [desk] = created.raise_on_failure().ids
    headers = {"Authorization": f"Bearer {platform.token}"}
    async with httpx.AsyncClient(headers=headers) as client:
        for _ in range(2):
            response = await client.post(
                f"{platform.url}/v1/session/{desk}/app", data={"image": "skaha/terminal:1.1.2"}
            )
            assert 200 == response.status_code, response.text
    apps = await session.apps(desk)
    assert 2 == len({app.app_id for app in apps})
    waited = await session.wait(apps, "Running")
    assert {app.app_id for app in apps} == {info.app_id for info in waited.values}
