"""Tests of the features that are specific to skaha."""

from __future__ import annotations

import pytest

import kaleden
from peers.remote import Client, Raised, require_peers, wait_for_status, wait_until_ended

require_peers("skaha")

IMAGE = "images.canfar.net/skaha/astroml:latest"


@pytest.fixture
def name() -> str:
    return "skaha"


async def test_single_session_is_a_replica_with_default_sizes(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="env")
    [info] = await wait_until_ended(session, ids)
    assert "fits-1" == info["name"]
    assert ("2", "4.29", True) == (
        info["requestedCPUCores"],
        info["requestedRAM"],
        info["isFixedResources"],
    )
    logs = await session.logs(ids)
    assert {"REPLICA_ID=1", "REPLICA_COUNT=1"} <= set(logs[ids[0]].splitlines())


async def test_list_of_all_users_has_few_fields(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="sleep", args="600")
    await wait_for_status(session, ids, "Running")
    assert [
        {
            "userid": "ada",
            "type": "headless",
            "status": "Running",
            "startTime": "2026-09-21T14:13:20Z",
        }
    ] == await session.fetch(view="all")


async def test_its_success_status_is_unknown_to_the_platform(
    session: Client, ours: kaleden.AsyncSession
) -> None:
    ids = await session.create("fits", IMAGE, cmd="true")
    await wait_until_ended(session, ids)
    assert [] == await session.fetch(status="Succeeded")
    assert {} == await session.destroy_with("fits")
    with pytest.raises(Raised, match="ValidationError"):
        await session.fetch(status="Completed")
    assert ids == [info.id for info in await ours.fetch(status="Completed")]
