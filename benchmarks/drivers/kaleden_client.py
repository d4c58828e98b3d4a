"""kaleden, collecting and streaming."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import kaleden
from benchmarks import payload
from benchmarks.drivers.child import Client, Job
from benchmarks.drivers.play import play


class Kaleden(Client):
    """An open `kaleden.AsyncSession`."""

    def __init__(self, session: kaleden.AsyncSession, job: Job) -> None:
        super().__init__(job)
        self.session = session

    async def one(self, key: str) -> Any:
        return (await self.session.info(key))[key]

    async def many(self, keys: Sequence[str]) -> Any:
        return await self.session.info(keys)

    def keys(self, results: Any) -> Iterable[str]:
        return [info.id for info in results.raise_on_failure().values]

    async def stream(self, keys: Iterable[str]) -> AsyncGenerator[str]:
        async with self.session.stream.info(keys) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, kaleden.Failure):
                    raise outcome.to_exception()
                yield outcome.value.id


class Raw(Kaleden):
    """The same with ``raw=True``, which returns the JSON objects of the server."""

    async def many(self, keys: Sequence[str]) -> Any:
        return await self.session.info(keys, raw=True)

    def keys(self, results: Any) -> Iterable[str]:
        return [info["id"] for info in results.raise_on_failure().values]


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Kaleden]:
    """Open a session, with TLS if the server has it."""
    kind = Raw if "raw" in sys.argv else Kaleden
    settings: dict[str, Any] = {"concurrency": job.concurrency}
    if job.cafile is not None:
        settings["ssl_context"] = ssl.create_default_context(cafile=job.cafile)
    async with kaleden.AsyncSession(job.url, payload.TOKEN, **settings) as session:
        yield kind(session, job)


if __name__ == "__main__":
    play(open_client)
