"""One log that grows: what is new in it, and whether it is still the same.

The server sends the whole log each time. What is kept of it is how much was seen, a digest of that,
and the last line while it is unfinished; so a log that was replaced is told from one that grew.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, final

from anyio.lowlevel import checkpoint
from attrs import frozen

WINDOW: Final = 2**14  # bytes of a log that are cut into lines at once
CHUNK: Final = 2**20  # bytes that are hashed before others get their turn


@final
@frozen
class News:
    """What one read of a log showed.

    Attributes:
        fresh: what was not seen before.
        reset: whether it is another log than before, of which *fresh* is all.
    """

    fresh: bytes
    reset: bool = False


@final
class GrowingLog:
    """What is kept of one log."""

    __slots__ = ("_digest", "_seen", "_unfinished")

    def __init__(self) -> None:
        self._seen = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._unfinished: list[bytes] = []

    async def news(self, body: bytes) -> News:
        """Compare the whole log, as it is now, with what was seen of it."""
        # The server also answers with nothing when it cannot reach the container.
        if not body:
            return News(b"")

        if await self._continues(body):
            return News(body[self._seen :])

        return News(body, reset=True)

    async def _continues(self, body: bytes) -> bool:
        view, digest = memoryview(body), hashlib.blake2b(digest_size=16)
        for start in range(0, self._seen, CHUNK):
            digest.update(view[start : min(start + CHUNK, self._seen)])
            await checkpoint()

        return digest.digest() == self._digest.digest()

    def lines(self, fresh: bytes) -> Iterator[list[str]]:
        """Take in what is new, and give the lines that it ends, some at a time; or none."""
        for start in range(0, len(fresh), WINDOW):
            piece = fresh[start : start + WINDOW]
            self._seen += len(piece)
            self._digest.update(piece)
            *finished, unfinished = piece.split(b"\n")
            if finished:
                finished[0] = b"".join([*self._unfinished, finished[0]])
                self._unfinished.clear()

            self._unfinished.append(unfinished)
            yield [_text(line) for line in finished]

    def rest(self) -> list[str]:
        """Give the unfinished line, if there is one: nothing will be added to it."""
        line = b"".join(self._unfinished)
        return [_text(line)] if line else []


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
