"""Where outcomes go: all are kept, or each is handed on."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar, cast, final

from kaleden._handoff import Deliver
from kaleden._outcomes import Outcome

T = TypeVar("T")


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
class Handed(Generic[T]):
    """A sink that hands each outcome to the consumer of a stream and keeps nothing."""

    def __init__(self, deliver: Deliver[Outcome[T]]) -> None:
        self._deliver = deliver

    def claim(self, key: str) -> bool:  # noqa: ARG002  # to know what came would take memory per key
        return True

    async def deliver(self, outcome: Outcome[T]) -> None:
        await self._deliver(outcome)
