"""Tests of the features that only canfar supports."""

from __future__ import annotations

import pytest

import kaleden
from peers.conftest import Clock
from peers.remote import Client, Peer, Raised, require_peers, wait_until_ended

require_peers("canfar")

IMAGE = "skaha/astroml"


@pytest.fixture
def name() -> str:
    return "canfar"


async def test_single_session_keeps_its_name_and_image_is_completed(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="true")
    [info] = await session.info(ids)
    assert "fits" == info["name"]
    assert "images.canfar.net/skaha/astroml:latest" == info["image"]


async def test_session_without_sizes_is_flexible(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cmd="true")
    [info] = await session.info(ids)
    assert info["isFixedResources"] is False
    assert "requestedRAM" not in info


async def test_renew_moves_the_expiry(session: Client, clock: Clock) -> None:
    ids = await session.create("notes", "skaha/base-notebook", kind="notebook")
    [before] = await session.info(ids)
    assert "2026-09-25T14:13:20Z" == before["expiryTime"]

    clock.now += 3600
    assert {ids[0]: True} == await session.renew(ids)
    [after] = await session.info(ids)
    assert before | {"expiryTime": "2026-09-25T15:13:20Z"} == after


async def test_ended_session_cannot_be_renewed(session: Client) -> None:
    ids = await session.create("fits", IMAGE, cores=1, ram=1, cmd="true", replicas=2)
    await wait_until_ended(session, ids)
    assert dict.fromkeys(ids, False) == await session.renew(ids)
    with pytest.raises(Raised, match="SessionRequestError"):
        await session.renew(ids, errors="raise")


async def test_destroy_with_selects_completed_sessions_by_default(
    session: Client, ours: kaleden.AsyncSession
) -> None:
    done = await session.create("fits", IMAGE, cores=1, ram=1, cmd="true", replicas=2)
    failed = await session.create("fits", IMAGE, cores=1, ram=1, cmd="false")
    await wait_until_ended(session, done + failed)
    assert dict.fromkeys(done, True) == await session.destroy_with("fits")
    assert failed == [info.id for info in await ours.fetch()]


async def test_unknown_session_raises_if_requested(session: Client) -> None:
    with pytest.raises(Raised, match="SessionRequestError"):
        await session.info("nosuch12", errors="raise")


async def test_images_have_kinds_and_digests(peer: Peer, ours: kaleden.AsyncSession) -> None:
    details = await peer.client("canfar.images.Images").details()
    assert [(image.id, image.kinds, image.digest) for image in await ours.images()] == [
        (image["id"], tuple(image["types"]), image["digest"]) for image in details
    ]
    [carta] = [image for image in details if "carta" in image["types"]]
    assert "images.canfar.net/skaha/carta:latest" == carta["id"]
