"""canfar, used through its public classes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from canfar.sessions import AsyncSession, Session

from benchmarks import payload
from benchmarks.drivers.child import Client, Job
from benchmarks.drivers.play import play


class Canfar(Client):
    """An open client of canfar."""

    def __init__(self, session: Any, job: Job) -> None:
        super().__init__(job)
        self.session = session

    async def one(self, key: str) -> Any:
        [info] = await self.session.info([key], errors="raise")
        return info

    async def many(self, keys: Sequence[str]) -> Any:
        return await self.session.info(list(keys), errors="raise")


class Blocking(Client):
    """An open client with blocking calls."""

    def __init__(self, session: Any, job: Job) -> None:
        super().__init__(job)
        self.session = session

    async def many(self, keys: Sequence[str]) -> Any:
        return self.session.info(list(keys), errors="raise")


@asynccontextmanager
async def open_client(job: Job) -> AsyncGenerator[Client]:
    """Open an AsyncSession or a Session. SSL_CERT_FILE has the certificate authority to trust."""
    settings: dict[str, Any] = {
        "url": f"{job.url}/v1",
        "token": payload.TOKEN,
        "concurrency": job.concurrency,
        # The largest value. With the default of 30, connections of the largest batch fail.
        "timeout": 300,
    }
    if "blocking" in sys.argv:
        with Session(**settings) as session:
            yield Blocking(session, job)
        return
    async with AsyncSession(**settings) as session:
        yield Canfar(session, job)


if __name__ == "__main__":
    play(open_client)
