"""A transport whose server is away at given times, in front of the platform in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import anyio
from attrs import define, field

from kaleden import FailureKind
from kaleden._http import TransportError
from kaleden._wire import Request, Response
from kaleden.testing import MemoryTransport
from support import text

Answer: TypeAlias = Response | TransportError


def is_list(request: Request) -> bool:
    return request.method == "GET" and request.target == "session"


def is_any(_: Request) -> bool:
    return True


BUSY = text("temporarily unavailable", 503)
BAD_GATEWAY = text("<html>Bad Gateway</html>", 502)
HTML = Response(200, {"content-type": "text/html"}, b"<html><title>Maintenance</title></html>")
NO_BACKEND = text("default backend - 404", 404)
BROKEN = text("unexpected exception: java.lang.NullPointerException", 500)
UNREACHABLE = TransportError(FailureKind.CONNECT_FAILED, "no route to host", sent=False)
LOST = TransportError(FailureKind.CONNECTION_LOST, "reset", sent=True)
REFUSED = text("Token has expired", 401)


@define(eq=False)
class OutageTransport:
    """Answers in place of the server during outages.

    Args:
        server: receives the other requests.

    Attributes:
        listed_at: the times of all lists.
    """

    server: MemoryTransport
    listed_at: list[float] = field(init=False, factory=list[float])
    _outages: list[tuple[float, float, Answer, Callable[[Request], bool]]] = field(
        init=False, factory=list[tuple[float, float, Answer, Callable[[Request], bool]]]
    )

    def add(
        self,
        begin: float,
        end: float,
        answer: Answer,
        concerns: Callable[[Request], bool] = is_any,
    ) -> None:
        """Answer requests like this from *begin* until *end*, in seconds."""
        self._outages.append((begin, end, answer, concerns))

    async def send(self, request: Request) -> Response:
        """Send a request to the server, or answer in its place."""
        now = anyio.current_time()
        if is_list(request):
            self.listed_at.append(now)
        for begin, end, answer, concerns in self._outages:
            if begin <= now < end and concerns(request):
                await anyio.sleep(0.05)
                if isinstance(answer, TransportError):
                    raise TransportError(answer.kind, answer.message, sent=answer.sent)
                return answer
        return await self.server.send(request)
