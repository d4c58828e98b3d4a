"""Sinks for outcomes: collect them, count them for a progress callback, or send them on.

`DeferredParsing` exists for speed. Right after a system call the processor's caches hold the data
of the kernel, and parsing a response then takes twice as long as right after another response. So
the responses of a batch are parsed 32 at a time.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, Generic, Protocol, TypeVar, cast, final

from kaleden._engine._channel import SendItem
from kaleden._engine._operations import Operation, parse_deferred
from kaleden._results._batch import Failure, Outcome, Success
from kaleden._results._progress import OK, ProgressCallback, ProgressUpdate
from kaleden._wire import Response

T = TypeVar("T")

MAX_DEFERRED: Final = 32
"""Responses that are parsed together; that takes a fraction of a millisecond."""

MAX_DEFERRED_BYTES: Final = 2**18
"""Bytes of response bodies that are held unparsed; one more response may exceed them."""


class Sink(Protocol[T]):
    """Receives the outcomes of workers."""

    def claim(self, key: str) -> bool:
        """Return whether *key* is to be requested; a second claim of it may be refused."""
        ...

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Take one outcome; may wait until the consumer is ready for it."""
        ...


@final
class Collector(Generic[T]):
    """A sink that keeps one outcome for each distinct key, in the order of the claims.

    Attributes:
        outcomes: the outcome of each claimed key; None while its request is in flight.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome[T] | None] = {}

    def claim(self, key: str) -> bool:
        """Accept *key* if it was not claimed before."""
        if key in self.outcomes:
            return False

        self.outcomes[key] = None
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Keep *outcome*."""
        self.outcomes[outcome.key] = outcome

    @property
    def completed(self) -> list[Outcome[T]]:
        """The outcomes of the requests that have completed."""
        return [outcome for outcome in self.outcomes.values() if outcome is not None]

    @property
    def results(self) -> dict[str, Outcome[T]]:
        """The outcome of each key; only once all requests have completed."""
        return cast("dict[str, Outcome[T]]", self.outcomes)


@final
class DeferredParsing(Generic[T]):
    """A sink that keeps all outcomes, and parses the responses a few dozen at a time.

    Args:
        operation: parses the responses.
    """

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self._collector = Collector[T]()
        self._unparsed: list[Success[Response]] = []
        self._size = 0

    def claim(self, key: str) -> bool:
        """Accept *key* if it was not claimed before."""
        return self._collector.claim(key)

    async def deliver(self, outcome: Outcome[Response]) -> None:
        """Keep *outcome*, to parse it together with later ones."""
        if isinstance(outcome, Failure):
            await self._collector.deliver(outcome)
            return

        self._unparsed.append(outcome)
        self._size += len(outcome.value.body)
        if len(self._unparsed) >= MAX_DEFERRED or self._size >= MAX_DEFERRED_BYTES:
            self._parse()

    @property
    def results(self) -> dict[str, Outcome[T]]:
        """The outcome of each key; only once all requests have completed."""
        self._parse()
        return self._collector.results

    def _parse(self) -> None:
        for received in self._unparsed:
            self._collector.outcomes[received.key] = parse_deferred(self._operation, received)
        self._unparsed.clear()
        self._size = 0


@final
class WithProgress(Generic[T]):
    """A sink that passes outcomes to another sink and reports their number.

    Args:
        sink: receives the outcomes.
        progress: is called after each outcome.
        operation: the name of the operation.
        total: the number of keys; None if it is not known.
        success_label: the label under which successes are counted.
    """

    def __init__(
        self,
        sink: Sink[T],
        progress: ProgressCallback,
        operation: str,
        total: int | None,
        success_label: str = OK,
    ) -> None:
        self._sink = sink
        self._progress = progress
        self._operation = operation
        self._total = total
        self._success_label = success_label
        self._counts = Counter[str]()

    def claim(self, key: str) -> bool:
        """Claim *key*; a repeated key lowers the total, since it has no outcome of its own."""
        is_new = self._sink.claim(key)
        if not is_new and self._total is not None:
            self._total -= 1
        return is_new

    async def deliver(self, outcome: Outcome[T]) -> None:
        """Pass *outcome* on, then report it, so that an error of the callback loses no outcome."""
        await self._sink.deliver(outcome)
        label = outcome.kind if isinstance(outcome, Failure) else self._success_label
        self._counts[label] += 1
        self._progress(
            to_progress_update(self._operation, self._counts, self._total, self._success_label)
        )


def with_progress(
    sink: Sink[T],
    progress: ProgressCallback | None,
    operation: str,
    total: int | None,
    success_label: str = OK,
) -> Sink[T]:
    """Wrap *sink* in a `WithProgress` if there is a callback; else return it unchanged."""
    if progress is None:
        return sink

    return WithProgress(sink, progress, operation, total, success_label)


def to_progress_update(
    operation: str, counts: Counter[str], total: int | None, success_label: str = OK
) -> ProgressUpdate:
    """Convert counts of outcomes by label; all but those under *success_label* have failed."""
    done = counts.total()
    failed = done - counts[success_label]
    return ProgressUpdate(counts, operation=operation, done=done, failed=failed, expected=total)


@final
class ToChannel(Generic[T]):
    """A sink that sends each outcome to the consumer of a stream, and keeps nothing."""

    def __init__(self, send: SendItem[Outcome[T]]) -> None:
        self._send = send

    def claim(self, key: str) -> bool:  # noqa: ARG002  # remembering keys would take memory for each
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        await self._send(outcome)
