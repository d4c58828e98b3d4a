"""Where outcomes go: all are kept, or each is handed on."""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, Protocol, TypeVar, cast, final

from kaleden._engine._channel import SendItem
from kaleden._engine._operations import Operation, parse_deferred
from kaleden._results._batch import Failure, Outcome, Success
from kaleden._results._progress import OK, ProgressCallback, ProgressUpdate
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
class Collector(Generic[T]):
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


@final
class DeferredParsing(Generic[T]):
    """A sink that keeps everything, and reads the replies a few dozen at a time.

    Right behind a system call the processor's caches are the kernel's. To read a reply there takes
    twice as long as to read it behind another one.

    Args:
        operation: reads the replies.
    """

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self._collected = Collector[T]()
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
            self._collected.known[reply.key] = parse_deferred(self._operation, reply)
        self._unread.clear()
        self._size = 0


@final
class WithProgress(Generic[T]):
    """A sink that tells how many outcomes another one has got.

    Args:
        sink: where the outcomes go.
        progress: is told.
        operation: what the outcomes are of.
        total: how many keys there will be; None if that is not known.
        word: what a success is counted as.
    """

    def __init__(
        self,
        sink: Sink[T],
        progress: ProgressCallback,
        operation: str,
        total: int | None,
        word: str = OK,
    ) -> None:
        self._sink = sink
        self._progress = progress
        self._operation = operation
        self._total = total
        self._word = word
        self._counts = Counter[str]()

    def claim(self, key: str) -> bool:
        """Claim *key*; one that came before makes no outcome."""
        is_new = self._sink.claim(key)
        if not is_new and self._total is not None:
            self._total -= 1
        return is_new

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Hand *outcome* on, then tell of it: what the caller's function raises loses nothing."""
        await self._sink.deliver(outcome)
        self._counts[outcome.kind if isinstance(outcome, Failure) else self._word] += 1
        self._progress(to_progress_update(self._operation, self._counts, self._total, self._word))


def with_progress(
    sink: Sink[T],
    progress: ProgressCallback | None,
    operation: str,
    total: int | None,
    word: str = OK,
) -> Sink[T]:
    """Have *progress* told of what goes to *sink*, if anybody wants to know; see `WithProgress`."""
    return sink if progress is None else WithProgress(sink, progress, operation, total, word)


def to_progress_update(
    operation: str, counts: Counter[str], total: int | None, word: str = OK
) -> ProgressUpdate:
    """Make the tally of outcomes, of which *word* counts those that did not fail."""
    done = counts.total()
    failed = done - counts[word]
    return ProgressUpdate(counts, operation=operation, done=done, failed=failed, expected=total)


@final
class ToChannel(Generic[T]):
    """A sink that hands each outcome to the consumer of a stream and keeps nothing."""

    def __init__(self, deliver: SendItem[Outcome[T]]) -> None:
        self._deliver = deliver

    def claim(self, key: str) -> bool:  # noqa: ARG002  # to know what came would take memory per key
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        await self._deliver(outcome)
