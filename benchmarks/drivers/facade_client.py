"""kaleden's synchronous class. Its calls block the event loop of the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Client, Job
from benchmarks.drivers.play import play


class Facade(Client):
    """An open `kaleden.Session`."""

    def __init__(self, session: kaleden.Session, job: Job) -> None:
        super().__init__(job)
        self.session = session

    async def many(self, keys: Sequence[str]) -> Any:
        return self.session.info(keys)

    def keys(self, results: Any) -> Iterable[str]:
        return [info.id for info in results.raise_on_failure().values]


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Facade]:
    """Open a session."""
    await asyncio.sleep(0)
    with kaleden.Session(job.url, payload.TOKEN, concurrency=job.concurrency) as session:
        yield Facade(session, job)


if __name__ == "__main__":
    play(open_client)
