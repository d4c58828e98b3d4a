"""Mutated responses over sockets: each is a response or an error, and costs no connection."""

from __future__ import annotations

import random
from collections import Counter

import anyio
import httpx
import pytest
from anyio.abc import SocketStream

from _http._h1.test_response_parser import CHUNKED, INTERIM, PLAIN, mutated
from kaleden._http import DirectTransport, TransportError
from kaleden._wire._requests import build_info
from kaleden.http import AnyioTransport
from support import PLAIN_BACKENDS, raw_server, read_request

TRIALS = 5000


class Mutating:
    """A server that sends a mutated response in two pieces, and closes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    async def serve(self, stream: SocketStream) -> None:
        await read_request(stream)
        for piece in self.answer():
            await stream.send(piece)

    def answer(self) -> list[bytes]:
        chance = self.chance
        raw = mutated(chance.choice((PLAIN, CHUNKED, INTERIM + CHUNKED)), chance)
        cut = chance.randrange(len(raw) + 1)
        return [piece for piece in (raw[:cut], raw[cut:]) if piece]


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_mutated_responses_cost_a_session_no_connection() -> None:
    ends = Counter[str]()
    async with raw_server(Mutating(5).serve) as url:
        async with DirectTransport(url, f"{url}/v1", connections=4, max_body=1000) as transport:
            for number in range(TRIALS):
                with anyio.fail_after(60):
                    try:
                        await transport.send(build_info(f"a{number}"))
                        ends["reply"] += 1
                    except TransportError as error:
                        ends[error.kind] += 1
            state = transport.statistics()
    assert TRIALS == ends.total()
    assert (0, 0) == (state.in_flight, state.stuck)
    assert {"reply", "connection_lost", "protocol"} == set(ends)


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", PLAIN_BACKENDS)
async def test_mutated_responses_cost_an_httpx_client_no_connection() -> None:
    ends = Counter[str]()
    transport = AnyioTransport(limits=httpx.Limits(max_connections=4))
    async with (
        raw_server(Mutating(7).serve) as url,
        httpx.AsyncClient(transport=transport) as client,
    ):
        for _ in range(TRIALS):
            with anyio.fail_after(60):
                try:
                    await client.get(url)
                    ends["reply"] += 1
                except httpx.RequestError as error:
                    ends[type(error).__name__] += 1
        assert (0, 0) == (transport.statistics().in_flight, transport.statistics().stuck)
    assert TRIALS == ends.total()
    assert {"reply", "RemoteProtocolError"} <= set(ends)
