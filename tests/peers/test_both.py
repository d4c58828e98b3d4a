"""Tests of the features that both peers support."""

from __future__ import annotations

from typing import Any

import anyio

import kaleden
from kaleden.local import LocalPlatform
from peers.conftest import Clock
from peers.remote import Client, Peer, require_peers, wait_for_status, wait_until_ended

require_peers("canfar", "skaha")

IMAGE = "images.canfar.net/skaha/astroml:latest"
NOTEBOOK = "images.canfar.net/skaha/base-notebook:latest"


async def test_empty_platform_has_no_sessions(session: Client) -> None:
    assert [] == await session.fetch()


async def test_replicas_run_with_their_environment(session: Client) -> None:
    ids = await session.create(
        "fits", IMAGE, cores=1, ram=2, cmd="env", env={"COLOUR": "red"}, replicas=3
    )
    assert 3 == len(set(ids))

    infos = await wait_until_ended(session, ids)
    assert ids == [info["id"] for info in infos]
    assert ["fits-1", "fits-2", "fits-3"] == [info["name"] for info in infos]
    assert ["Completed"] * 3 == [info["status"] for info in infos]

    logs = await session.logs(ids)
    assert ids == list(logs)
    for n, id_ in enumerate(ids, 1):
        expected = {"COLOUR=red", f"REPLICA_ID={n}", "REPLICA_COUNT=3", f"skaha_sessionid={id_}"}
        assert expected <= set(logs[id_].splitlines())


async def test_info_and_list_agree(session: Client) -> None:
    [id_] = await session.create(
        "fits", IMAGE, cores=1, ram=4, cmd="echo", args="one two", replicas=1
    )
    # skaha requests a view here that does not exist.
    [info] = await wait_until_ended(session, [id_])
    assert [info] == await session.fetch()
    assert {
        "id": id_,
        "userid": "ada",
        "image": IMAGE,
        "type": "headless",
        "status": "Completed",
        "startTime": "2026-09-21T14:13:20Z",
        "expiryTime": "2026-10-05T14:13:20Z",
        "connectURL": "",
        "requestedRAM": "4.29",
        "requestedCPUCores": "1",
        "requestedGPUCores": "0",
        "isFixedResources": True,
    }.items() <= info.items()
    assert {id_: "one two\n"} == await session.logs(id_)


async def test_failing_command_ends_as_failed(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="false")
    assert ["Failed"] == [info["status"] for info in await wait_until_ended(session, ids)]


async def test_events_describe_each_session(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cores=1, ram=1, cmd="true", replicas=2)
    await wait_until_ended(session, ids)
    events = await session.events(ids)
    assert ids == [id_ for each in events for id_ in each]
    for id_, table in zip(ids, (text for each in events for text in each.values()), strict=True):
        head, *rows = table.splitlines()
        assert ["TYPE", "REASON", "MESSAGE", "FIRST-TIME", "LAST-TIME"] == head.split()
        assert ["Scheduled", "Started"] == [row.split()[1] for row in rows]
        assert f"Successfully assigned skaha-headless-ada-{id_} to this machine" in table


async def test_verbose_output_is_not_returned(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="echo", args="aloud")
    await wait_until_ended(session, ids)
    assert await session.logs(ids, verbose=True) is None
    assert await session.events(ids, verbose=True) is None


async def test_session_waits_for_free_resources(session: Client) -> None:
    [first] = await session.create("fits", IMAGE, cores=8, ram=4, cmd="sleep", args="600")
    [second] = await session.create("fits", IMAGE, cores=8, ram=4, cmd="sleep", args="600")
    await wait_for_status(session, [first], "Running")
    [waiting] = await session.info(second)
    assert "Pending" == waiting["status"]
    assert "startTime" not in waiting
    # The server responds with 404 because the pod does not exist yet. The peers omit the session.
    assert [first] == [id_ for each in await session.events([first, second]) for id_ in each]
    assert {second: ""} == await session.logs(second)

    await session.destroy(first)
    await wait_for_status(session, [second], "Running")


async def test_many_replicas_are_returned_in_order(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cores=1, ram=1, cmd="true", replicas=40)
    infos = await wait_until_ended(session, ids)
    assert [f"fits-{n}" for n in range(1, 41)] == [info["name"] for info in infos]
    assert dict.fromkeys(ids, True) == await session.destroy(ids)
    assert [] == await session.fetch()


async def test_destroyed_session_is_gone_with_its_processes(
    session: Client, platform: LocalPlatform, ours: kaleden.AsyncSession
) -> None:
    ids = await session.create("fits", IMAGE, cores=1, ram=1, cmd="sleep", args="600", replicas=3)
    await wait_for_status(session, ids, "Running")
    assert 3 == platform.statistics().processes
    assert set(ids) == {info.id for info in await ours.fetch()}

    assert dict.fromkeys(ids[:2], True) == await session.destroy(ids[:2])
    assert ids[2:] == [info.id for info in await ours.fetch()]
    assert [] == await session.info(ids[:2])
    await wait_for_processes(1, platform)


async def wait_for_processes(count: int, platform: LocalPlatform) -> None:
    with anyio.fail_after(60):
        while platform.statistics().processes != count:  # noqa: ASYNC110 - no event
            await anyio.sleep(0.02)


async def test_unknown_session_is_omitted_and_can_be_destroyed(session: Client) -> None:
    assert [] == await session.info("nosuch12")
    assert [] == await session.events("nosuch12")
    assert {"nosuch12": ""} == await session.logs("nosuch12")
    assert {"nosuch12": True} == await session.destroy("nosuch12")


async def test_destroy_with_selects_by_name_kind_and_status(
    session: Client, ours: kaleden.AsyncSession
) -> None:
    sleeping: Any = {"cores": 1, "ram": 1, "cmd": "sleep", "args": "600", "replicas": 2}
    taken = await session.create("fits", IMAGE, **sleeping)
    others = await session.create("flat", IMAGE, **sleeping)
    others += await session.create("fits", NOTEBOOK, cores=1, ram=1, kind="notebook")
    ended = await session.create("fits", IMAGE, cores=1, ram=1, cmd="true")
    await wait_for_status(session, [*taken, *others, *ended], "Running", "Completed")
    await wait_for_status(session, ended, "Completed")

    assert dict.fromkeys(taken, True) == await session.destroy_with("fits", status="Running")
    assert {*others, *ended} == {info.id for info in await ours.fetch()}


async def test_list_is_filtered_by_kind_and_status(session: Client) -> None:
    [fits] = await session.create("fits", IMAGE, cmd="sleep", args="600")
    [notes] = await session.create("notes", NOTEBOOK, kind="notebook")
    await wait_for_status(session, [fits, notes], "Running")
    assert [fits, notes] == [info["id"] for info in await session.fetch()]
    assert [notes] == [info["id"] for info in await session.fetch(kind="notebook")]
    assert [] == await session.fetch(kind="carta")
    assert [fits, notes] == [info["id"] for info in await session.fetch(status="Running")]
    assert [] == await session.fetch(kind="headless", status="Pending")


async def test_sixth_interactive_session_is_rejected(
    session: Client, ours: kaleden.AsyncSession
) -> None:
    ids = await session.create("notes", NOTEBOOK, cores=1, ram=1, kind="notebook", replicas=6)
    assert 5 == len(ids)
    assert set(ids) == {info.id for info in await ours.fetch()}


async def test_ended_session_is_removed_after_an_hour(session: Client, clock: Clock) -> None:
    ids = await session.create("fits", IMAGE, cmd="true")
    await wait_until_ended(session, ids)
    clock.now += 3599
    assert ids == [info["id"] for info in await session.fetch()]
    clock.now += 1
    assert [] == await session.fetch()
    assert [] == await session.info(ids)


async def test_statistics_count_requested_and_available_resources(session: Client) -> None:
    await session.create("fits", IMAGE, cores=2, ram=4, cmd="sleep", args="600")
    stats = await session.stats()
    assert {
        "requestedCPUCores": 2.0,
        "cpuCoresAvailable": 8.0,
        "maxCPUCores": {"cpuCores": 8.0, "withRam": "16G"},
    } == stats["cores"]
    assert {
        "requestedRAM": "4.295G",
        "ramAvailable": "17.180G",
        "maxRAM": {"ram": "16G", "withCPUCores": 8.0},
    } == stats["ram"]


async def test_images_are_filtered_by_kind(name: str, peer: Peer) -> None:
    images = peer.client(f"{name}.images.Images")
    assert ["images.canfar.net/skaha/carta:latest"] == await images.fetch(kind="carta")
    assert {IMAGE, NOTEBOOK, "images.canfar.net/skaha/carta:latest"} < set(await images.fetch())


async def test_context_lists_allowed_resources(name: str, peer: Peer) -> None:
    context = await peer.client(f"{name}.context.Context").resources()
    assert [1, 2, 3, 4, 5, 6, 7, 8] == context["cores"]["options"]
    assert [1, 2, 4, 6, 8, 10, 12, 14, 16] == context["memoryGB"]["options"]
    assert 5 == context["maxInteractiveSessions"]


async def test_platform_is_available(name: str, peer: Peer) -> None:
    assert await peer.client(f"{name}.overview.Overview").availability() is True
