"""The adapter over httpx: what only it can meet."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

import kaleden
from kaleden._http import HttpxTransport
from support import raw_server
from transports.servers import TOKEN, describe


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_PROXY", "[::1"), ("HTTP_PROXY", "ftp://127.0.0.1"), ("SSL_CERT_FILE", "/nonexistent")],
)
async def test_an_environment_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(kaleden.ConfigurationError, match=name):
        async with kaleden.AsyncSession("https://example.invalid/skaha"):
            pass


async def test_a_pool_with_a_lost_slot_is_replaced_and_that_is_told() -> None:
    class Stuck:
        """A connection as a cancelled one can be left: never idle, never closed."""

        def is_idle(self) -> bool:
            return False

        def is_closed(self) -> bool:
            return False

    async with raw_server(describe) as url, AsyncExitStack() as stack:
        transport = HttpxTransport(url, f"{url}/v1", TOKEN, connections=4)
        await stack.enter_async_context(transport)
        session = await stack.enter_async_context(kaleden.AsyncSession(transport=transport))
        await session.info("a")
        pool = transport._client._transport._pool  # type: ignore[attr-defined]
        pool._connections.append(stuck := Stuck())
        assert 1 == transport.statistics().stuck
        await session.info("b")
        assert (0, 1) == (transport.statistics().stuck, transport.statistics().replaced)
        assert (await session.info("c")).ok
        assert "0 in flight" in repr(transport)
        pool._connections.remove(stuck)
