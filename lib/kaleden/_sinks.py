"""Where outcomes go: all are kept, or each is handed on."""

from __future__ import annotations

from typing import Final, Generic, Protocol, TypeVar, cast, final

from kaleden._handoff import Deliver
from kaleden._operation import Operation, read
from kaleden._outcomes import Failure, Outcome, Success
from kaleden._wire import Response

T = TypeVar("T")

REPLIES: Final = 32  # that are read together; a fraction of a millisecond's work
BYTES: Final = 2**18  # of replies that are held for that, at most, and one more reply


class Sink(Protocol[T]):
    """Where a worker's outcomes go."""

    def claim(self, key: str) -> bool:
        """Tell whether *key* is to be asked for; a second claim of it may be refused."""
        ...

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Take one outcome; may wait until there is room for it."""
        ...


@final
class Collected(Generic[T]):
    """A sink that keeps everything, one outcome per distinct key, in the order of the claims.

    Attributes:
        known: the outcome of each key that was claimed; None while it is on its way.
    """

    def __init__(self) -> None:
        self.known: dict[str, Outcome[T] | None] = {}

    def claim(self, key: str) -> bool:
        """Take *key* the first time it comes."""
        if key in self.known:
            return False

        self.known[key] = None
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Keep *outcome*."""
        self.known[outcome.key] = outcome

    @property
    def done(self) -> list[Outcome[T]]:
        """The outcomes that are known by now."""
        return [outcome for outcome in self.known.values() if outcome is not None]

    @property
    def whole(self) -> dict[str, Outcome[T]]:
        """The outcome of each key, once none is on its way any more."""
        return cast("dict[str, Outcome[T]]", self.known)

    @property
    def pending(self) -> list[str]:
        """The keys that were claimed and have no outcome yet."""
        return [key for key, outcome in self.known.items() if outcome is None]


@final
class Unread(Generic[T]):
    """A sink that keeps everything, and reads the replies a few dozen at a time.

    Right behind a system call the processor's caches are the kernel's. To read a reply there takes
    twice as long as to read it behind another one.

    Args:
        operation: reads the replies.
    """

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self._collected = Collected[T]()
        self._unread: list[Success[Response]] = []
        self._size = 0

    def claim(self, key: str) -> bool:
        """Take *key* the first time it comes."""
        return self._collected.claim(key)

    async def deliver(self, outcome: Outcome[Response]) -> None:
        """Keep *outcome*, and read it with those that come after it."""
        if isinstance(outcome, Failure):
            await self._collected.deliver(outcome)
            return

        self._unread.append(outcome)
        self._size += len(outcome.value.body)
        if len(self._unread) >= REPLIES or self._size >= BYTES:
            self._read()

    @property
    def whole(self) -> dict[str, Outcome[T]]:
        """The outcome of each key, once none is on its way any more."""
        self._read()
        return self._collected.whole

    def _read(self) -> None:
        for reply in self._unread:
            self._collected.known[reply.key] = read(self._operation, reply)
        self._unread.clear()
        self._size = 0


@final
class Handed(Generic[T]):
    """A sink that hands each outcome to the consumer of a stream and keeps nothing."""

    def __init__(self, deliver: Deliver[Outcome[T]]) -> None:
        self._deliver = deliver

    def claim(self, key: str) -> bool:  # noqa: ARG002  # to know what came would take memory per key
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        await self._deliver(outcome)
