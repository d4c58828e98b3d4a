"""The adapter over httpx: what only it can meet."""

from __future__ import annotations

from contextlib import AsyncExitStack

import kaleden
from _http.servers import describe
from kaleden._http._httpx_adapter import HttpxTransport
from support import raw_server


async def test_a_pool_with_a_lost_slot_is_replaced_and_that_is_told() -> None:
    class Stuck:
        """A connection as a cancelled one can be left: never idle, never closed."""

        def is_idle(self) -> bool:
            return False

        def is_closed(self) -> bool:
            return False

        def has_expired(self) -> bool:
            return False

        def can_handle_request(self, _: object) -> bool:
            return False

        async def aclose(self) -> None:
            """There is nothing to close."""

    async with raw_server(describe) as url, AsyncExitStack() as stack:
        transport = HttpxTransport(url, f"{url}/v1", connections=4)
        await stack.enter_async_context(transport)
        session = await stack.enter_async_context(kaleden.AsyncSession(transport=transport))
        await session.info("a")
        pool = transport._pool.client._transport._pool  # type: ignore[attr-defined]
        pool._connections.append(Stuck())
        assert 1 == transport.statistics().stuck
        assert (await session.info("b")).ok
        assert (0, 1) == (transport.statistics().stuck, transport.statistics().replaced)
        assert (await session.info("c")).ok
        assert "0 in flight" in repr(transport)
