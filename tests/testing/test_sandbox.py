"""Tests of `Sandbox`, on both kinds of platform."""

from __future__ import annotations

import pytest

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, Sandbox
from support import FULL_IMAGE

pytestmark = pytest.mark.parametrize("kind", ["memory", "local"])


async def test_session_works_and_remaining_sessions_are_listed(kind: str) -> None:
    sandbox = Sandbox(kind)
    async with sandbox.session() as session:
        created = await session.create("left", FULL_IMAGE, cmd="sleep", args="100")
        assert created.ok
    assert ["left"] == [each.spec.name for each in sandbox.sessions()]


async def test_faults_apply_until_they_are_cleared(kind: str) -> None:
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


async def test_requests_are_counted_by_kind(kind: str) -> None:
    sandbox = Sandbox(kind)
    assert {} == sandbox.requests
    async with sandbox.session() as session:
        await session.info(["x", "y"])
        await session.fetch()
    assert {"info": 2, "list": 1} == sandbox.requests


async def test_consecutive_sessions_share_an_open_platform(kind: str) -> None:
    async with Sandbox(kind) as sandbox:
        async with sandbox.session() as first:
            [id_] = (await first.create("kept", FULL_IMAGE, cmd="sleep", args="100")).values
        async with sandbox.session(concurrency=1) as second:
            assert [id_] == [info.id for info in await second.fetch()]


async def test_sandbox_can_be_opened_only_once(kind: str) -> None:
    sandbox = Sandbox(kind)
    async with sandbox.session():
        pass
    with pytest.raises(RuntimeError, match="entered"):
        async with sandbox.session():
            pass


async def test_invalid_fault_is_rejected_and_plan_is_kept(kind: str) -> None:
    sandbox = Sandbox(kind)
    sandbox.faults.add("html")
    with pytest.raises(ValueError, match="nonsense"):
        sandbox.faults.add("nonsense")
    with pytest.raises(ValueError, match="cannot be done here"):
        sandbox.faults.add("duplicate" if kind == "memory" else "lie")
    assert "<Faults: html>" == repr(sandbox.faults)


async def test_environ_needs_an_open_local_platform(kind: str) -> None:
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


async def test_certificate_of_local_platform_is_trusted(kind: str) -> None:
    async with Sandbox(kind, **({"tls": True} if kind == "local" else {})).session() as session:
        assert [] == await session.fetch()
