"""kaleden's synchronous class. Its calls block, as they do in the programs that it is made for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Client, Order
from benchmarks.drivers.play import play


class Facade(Client):
    """An open `kaleden.Session`."""

    def __init__(self, session: kaleden.Session, order: Order) -> None:
        super().__init__(order)
        self.session = session

    async def many(self, keys: Sequence[str]) -> Any:
        return self.session.info(keys)

    def keys(self, results: Any) -> Iterable[str]:
        return [info.id for info in results.raise_on_failure().values]


@asynccontextmanager
async def opened(order: Order) -> AsyncGenerator[Facade]:
    """Open a session."""
    await asyncio.sleep(0)
    with kaleden.Session(order.url, payload.TOKEN, concurrency=order.concurrency) as session:
        yield Facade(session, order)


if __name__ == "__main__":
    play(opened)
