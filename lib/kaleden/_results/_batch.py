"""Results that carry successes and failures together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, NoReturn, Self, TypeAlias, TypeVar, cast, final

from kaleden._errors import FailureKind, KaledenError
from kaleden._results._outcome import Failure, FinishedSession, Outcome, Success
from kaleden._results._tables import (
    Grid,
    Tabular,
    View,
    build_outcome_grid,
    build_view,
    select_rows,
)
from kaleden._wire import Event, SessionInfo, get_converter

__all__ = (
    "BatchError",
    "Failure",
    "FinishedSession",
    "Outcome",
    "Outcomes",
    "RetryFunction",
    "Success",
)

T = TypeVar("T")

RetryFunction: TypeAlias = Callable[[Sequence[str]], Awaitable["Outcomes[Any]"]]

# Asking again brings the same, or could make a second session.
_FINAL: Final = frozenset({FailureKind.INVALID, FailureKind.UNKNOWN_EFFECT})

_VALUE_TYPES: Final[dict[str, Any]] = {
    "connect": str,
    "create": str,
    "destroy": bool,
    "events": tuple[Event, ...],
    "info": SessionInfo,
    "logs": str,
    "raw info": dict[str, Any],
    "reap": bool,
    "renew": bool,
    "run": FinishedSession,
    "wait": SessionInfo,
}


@final
class Outcomes(Tabular, Generic[T]):
    """What became of each session of one operation, in the order they were given.

    Iterate it for `Success` and `Failure` objects, or index it with a key. A key is a session id;
    for `create`, where there is no id before the server made one, it is the session name. Each
    distinct key has exactly one outcome. ``match`` tells them apart, for every type checker too::

        for outcome in outcomes:
            match outcome:
                case Success(value=value):
                    print(outcome.key, value)
                case Failure(message=message):
                    print(outcome.key, message)

    A notebook shows them as a table, and `to_pandas` and `to_table` take them elsewhere.

    Args:
        operation: the name of the method that was called.
        outcomes: one outcome per distinct key; a dict of them by key is kept as it is.
        again: how to ask for some keys once more; makes `retry_failed` possible.
    """

    __slots__ = ("_again", "_by_key", "operation")

    def __init__(
        self,
        operation: str,
        outcomes: Iterable[Outcome[T]] | dict[str, Outcome[T]],
        *,
        again: RetryFunction | None = None,
    ) -> None:
        self.operation: str = operation
        # Of a million outcomes, a second dict would be a hundred megabytes for a moment.
        self._by_key: dict[str, Outcome[T]] = (
            cast("dict[str, Outcome[T]]", outcomes)
            if isinstance(outcomes, dict)
            else {outcome.key: outcome for outcome in outcomes}
        )
        self._again = again

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(isinstance(outcome, Failure) for outcome in self)

    @property
    def values(self) -> list[T]:
        """The values of the successes, in order."""
        return [outcome.value for outcome in self if isinstance(outcome, Success)]

    @property
    def successes(self) -> dict[str, T]:
        """The value of each success by its key, in order."""
        return {outcome.key: outcome.value for outcome in self if isinstance(outcome, Success)}

    @property
    def failures(self) -> dict[str, Failure]:
        """Each failure by its key, in order."""
        return {outcome.key: outcome for outcome in self if isinstance(outcome, Failure)}

    @property
    def ids(self) -> list[str]:
        """The ids of the sessions that this speaks of.

        After `create`, those of the new sessions. After any other operation every id that it was
        given, failed ones too: that one request failed does not end the session it was about.
        """
        if self.operation == "create":
            return cast("list[str]", self.values)

        return list(self._by_key)

    def counts(self) -> Counter[FailureKind]:
        """Count the failures by kind."""
        return Counter(failure.kind for failure in self.failures.values())

    def raise_on_failure(self) -> Self:
        """Raise if anything failed.

        Returns:
            This object, so that calls can be chained.

        Raises:
            BatchError: a group with one exception per failure, and all the outcomes.
        """
        if failures := self.failures:
            errors = [failure.to_exception() for failure in failures.values()]
            raise BatchError(self._format_error(), errors, self)

        return self

    async def retry_failed(self) -> Outcomes[T]:
        """Ask once more for what failed, where that is safe.

        What was refused as invalid is left as it is, and so is a launch that may have made a
        session: sending it again could make two. Plain code cannot await it: there it is
        ``session.retry_failed(outcomes)``, a method that `AsyncSession` has as well.

        Returns:
            The same keys in the same order, with the new outcomes in place of the failed ones.

        Raises:
            RuntimeError: these outcomes were loaded from JSON or a pickle, and know no session to
                ask.

        Cancellation:
            As of the operation that made these outcomes; this object is never changed.
        """
        if self._again is None:
            msg = (
                "these outcomes were loaded, not returned by an open session: "
                "give list(outcomes.failures) to the session's method instead"
            )
            raise RuntimeError(msg)

        again = [key for key, failure in self.failures.items() if failure.kind not in _FINAL]
        later = await self._again(again)
        merged = [later._by_key.get(outcome.key, outcome) for outcome in self]
        return Outcomes(self.operation, merged, again=self._again)

    def to_json(self) -> str:
        """Write all outcomes as one JSON text."""
        data = [
            {"ok": outcome.ok, **get_converter().unstructure(outcome, type(outcome))}
            for outcome in self
        ]
        return json.dumps({"operation": self.operation, "outcomes": data})

    @classmethod
    def from_json(cls, text: str, value_type: Any = None) -> Outcomes[Any]:
        """Read what `to_json` wrote.

        Args:
            text: the JSON text.
            value_type: the type of the values; by default the one that the named operation returns.

        Raises:
            ValueError: the text is not of outcomes, or of an operation that is not known.
        """
        loaded: Any = json.loads(text)
        data: dict[str, Any] = loaded if _is_object(loaded) else {}
        operation = str(data.get("operation", "nothing"))
        kind = value_type or _VALUE_TYPES.get(operation)
        if kind is None:
            msg = f"outcomes of {operation!r} are not known here: give the type of their values"
            raise ValueError(msg)

        return Outcomes(operation, [_load(item, kind) for item in data["outcomes"]])

    def __iter__(self) -> Iterator[Outcome[T]]:
        return iter(self._by_key.values())

    def __getitem__(self, key: str) -> Outcome[T]:
        return self._by_key[key]

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def __bool__(self) -> NoReturn:
        raise TypeError("the truth of outcomes is ambiguous: use .ok, or len()")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Outcomes):
            return NotImplemented

        return self.operation == other.operation and list(self) == list(cast("Any", other))

    __hash__: ClassVar[None]  # type: ignore[assignment]  # equal by content, like a list

    def __reduce__(self) -> tuple[Any, ...]:
        return Outcomes, (self.operation, tuple(self))

    def __repr__(self) -> str:
        return f"<Outcomes {self.operation}: {self._summarize()}>"

    def _grid(self) -> Grid:
        return build_outcome_grid(self.operation, self)

    def _view(self, most: int) -> View:
        chosen = select_rows(self, len(self), _has_failed, most)
        caption = f"{self.operation}: {self._summarize()}"
        return build_view(build_outcome_grid(self.operation, chosen), caption, len(self))

    def _summarize(self) -> str:
        counts = self.counts()
        failed = counts.total()
        kinds = ", ".join(f"{kind}={count}" for kind, count in counts.most_common())
        return f"{len(self) - failed} ok" + (f", {failed} failed ({kinds})" if failed else "")

    def _format_error(self) -> str:
        first = next(iter(self.failures.values()))
        return f"{len(self.failures)} of {len(self)} {self.operation} requests failed: {first}"


@final
class BatchError(KaledenError, ExceptionGroup[KaledenError]):
    """Some requests of one operation failed.

    Catch parts of it with ``except*``; the successes are in `outcomes`.

    Attributes:
        outcomes: every outcome of the operation, successes included.
    """

    outcomes: Outcomes[Any]

    def __new__(
        cls, message: str, errors: Sequence[KaledenError], outcomes: Outcomes[Any]
    ) -> BatchError:
        """Make a group; the base class takes its arguments here."""
        self = super().__new__(cls, message, errors)
        self.outcomes = outcomes
        return self

    def __init__(
        self, message: str, errors: Sequence[KaledenError], outcomes: Outcomes[Any]
    ) -> None:
        super().__init__(message, errors, outcomes)  # type: ignore[call-arg]

    def __reduce__(self) -> tuple[Any, ...]:
        # The base class's works by itself, and not where tblib replaces it, as in a Dask program.
        return type(self), (self.message, self.exceptions, self.outcomes), vars(self)

    def derive(self, excs: Sequence[Any], /) -> BatchError:  # type: ignore[override]
        """Make the part of this group that ``except*`` hands on."""
        return BatchError(self.message, excs, self.outcomes)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _load(item: dict[str, Any], value_type: Any) -> Outcome[Any]:
    if item.pop("ok"):
        return get_converter().structure(item, Success[value_type])

    return get_converter().structure(item, Failure)


def _has_failed(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome, Failure)
