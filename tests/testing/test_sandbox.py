"""A platform for one test, and what goes wrong on it."""

from __future__ import annotations

import pytest

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, Sandbox

IMAGE = "images.canfar.net/skaha/astroml:latest"

pytestmark = pytest.mark.parametrize("kind", ["memory", "local"])


async def test_a_session_on_it_works_and_what_it_leaves_is_seen(kind: str) -> None:
    sandbox = Sandbox(kind)
    async with sandbox.session() as session:
        created = await session.create("left", IMAGE, cmd="sleep", args="100")
        assert created.ok
    assert ["left"] == [each.spec.name for each in sandbox.sessions()]


async def test_faults_befall_it_until_they_are_cleared(kind: str) -> None:
    sandbox = Sandbox(kind)
    sandbox.faults.add("error-before", on="info")
    async with sandbox.session() as session:
        [failure] = (await session.info(["x"])).failures.values()
        assert 500 == failure.status
        sandbox.faults.clear()
        [failure] = (await session.info(["x"])).failures.values()
        assert 404 == failure.status
        sandbox.faults.plan = FaultPlan([Fault("busy", "info", status=429)])
        sandbox.faults.add(FaultKind.DELAY)
        assert "<Faults: busy, delay>" == repr(sandbox.faults)


async def test_it_counts_requests_by_kind(kind: str) -> None:
    sandbox = Sandbox(kind)
    assert {} == sandbox.requests
    async with sandbox.session() as session:
        await session.info(["x", "y"])
        await session.fetch()
    assert {"info": 2, "list": 1} == sandbox.requests


async def test_sessions_one_after_the_other_share_a_platform_that_is_held_open(kind: str) -> None:
    async with Sandbox(kind) as sandbox:
        async with sandbox.session() as first:
            [id_] = (await first.create("kept", IMAGE, cmd="sleep", args="100")).values
        async with sandbox.session(concurrency=1) as second:
            assert [id_] == [info.id for info in await second.fetch()]


async def test_it_is_opened_once(kind: str) -> None:
    sandbox = Sandbox(kind)
    async with sandbox.session():
        pass
    with pytest.raises(RuntimeError, match="entered"):
        async with sandbox.session():
            pass


async def test_a_fault_that_cannot_be_is_refused_and_the_plan_stays(kind: str) -> None:
    sandbox = Sandbox(kind)
    sandbox.faults.add("html")
    with pytest.raises(ValueError, match="nonsense"):
        sandbox.faults.add("nonsense")
    with pytest.raises(ValueError, match="cannot be done here"):
        sandbox.faults.add("duplicate" if kind == "memory" else "lie")
    assert "<Faults: html>" == repr(sandbox.faults)


async def test_only_a_server_that_is_open_has_an_address(kind: str) -> None:
    sandbox = Sandbox(kind)
    with pytest.raises(RuntimeError, match=r'@pytest.mark.kaleden\("local"\)'):
        _ = sandbox.environ
    async with sandbox:
        if kind == "local":
            url, token = sandbox.environ.values()
            async with kaleden.AsyncSession(url, token) as session:
                assert [] == await session.fetch()
    with pytest.raises(RuntimeError, match="local"):
        _ = sandbox.environ
    assert repr(sandbox).startswith("<Sandbox of <")


async def test_a_server_with_tls_is_trusted(kind: str) -> None:
    async with Sandbox(kind, **({"tls": True} if kind == "local" else {})).session() as session:
        assert [] == await session.fetch()
