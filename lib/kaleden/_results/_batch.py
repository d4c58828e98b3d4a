"""The outcomes of batch operations: `Outcomes` and `BatchError`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Final, Generic, NoReturn, Self, TypeAlias, TypeVar, cast, final

from attrs import evolve

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

# Failures that are not retried: a retry would fail in the same way, or could create a second
# session.
_FINAL: Final = frozenset({FailureKind.INVALID, FailureKind.UNKNOWN_EFFECT})

_BY_NAME: Final = frozenset({"create", "run"})
"""Operations whose keys are names."""

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
    """The outcomes of one operation, in the order of its arguments.

    Iterate over it to get `Success` and `Failure` objects, or index it with a key. A key is a
    session id; for `create`, where the server has not yet assigned an id, it is the session name.
    Each distinct key has exactly one outcome. ``match`` distinguishes them, also for type
    checkers::

        for outcome in outcomes:
            match outcome:
                case Success(value=value):
                    print(outcome.key, value)
                case Failure(message=message):
                    print(outcome.key, message)

    A notebook shows them as a table. `to_pandas` and `to_table` convert them for other libraries.

    Args:
        operation: the name of the method that was called.
        outcomes: one outcome per distinct key. A dict of them by key is stored without a copy.
        again: a function that repeats the operation for some keys; `retry_failed` requires it.
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
        # Not copied: for a million outcomes a second dict would take a hundred megabytes.
        self._by_key: dict[str, Outcome[T]] = (
            cast("dict[str, Outcome[T]]", outcomes)
            if isinstance(outcomes, dict)
            else {outcome.key: outcome for outcome in outcomes}
        )
        self._again = again

    @property
    def ok(self) -> bool:
        """Whether all outcomes are successes."""
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
        """The ids of the sessions of this operation.

        After `create`, the ids of the new sessions. After any other operation, every id that it was
        given or found, including those of failed requests, as their sessions may still exist.
        """
        return [key for outcome in self if (key := self._get_id(outcome)) is not None]

    def _get_id(self, outcome: Outcome[Any]) -> str | None:
        """Return the session id of an outcome, whose key may be a name."""
        if isinstance(outcome, Failure):
            is_named = outcome.by_name or self.operation in _BY_NAME
            return outcome.session if is_named else outcome.key

        if self.operation == "create":
            return cast("str", outcome.value)

        return outcome.value.info.id if self.operation == "run" else outcome.key

    def counts(self) -> Counter[FailureKind]:
        """Count the failures by kind."""
        return Counter(failure.kind for failure in self.failures.values())

    def raise_on_failure(self) -> Self:
        """Raise an exception if any outcome is a failure.

        Returns:
            This object, so that calls can be chained.

        Raises:
            BatchError: at least one outcome is a failure. The group has one exception per failure
                and all outcomes.
        """
        if failures := self.failures:
            errors = [failure.to_exception() for failure in failures.values()]
            first = next(iter(failures.values()))
            message = f"{len(failures)} of {len(self)} {self.operation} requests failed: {first}"
            raise BatchError(message, errors, self)

        return self

    async def retry_failed(self) -> Outcomes[T]:
        """Repeat the operation for the failed keys where that is safe.

        Two kinds of failure are not retried: arguments that were refused as invalid, and launches
        that may have created a session, since a retry could create a second one. Synchronous code
        calls ``session.retry_failed(outcomes)`` instead; `AsyncSession` has that method too.

        Returns:
            The same keys in the same order, with new outcomes for the retried keys.

        Raises:
            RuntimeError: these outcomes were loaded from JSON or a pickle, and have no session to
                send the requests with.

        Cancellation:
            See the method that returned these outcomes. This object is never changed.
        """
        if self._again is None:
            msg = (
                "these outcomes were loaded, not returned by an open session: "
                "give list(outcomes.failures) to the session's method instead"
            )
            raise RuntimeError(msg)

        again = [key for key, failure in self.failures.items() if self._can_retry(failure)]
        later = await self._again(again)
        merged = [later._by_key.get(outcome.key, outcome) for outcome in self]
        # The later outcomes also know of what the repetition has left on the server.
        return Outcomes(self.operation, merged, again=later._again)

    def _can_retry(self, failure: Failure) -> bool:
        # The failure of a launch that a later operation has carried on is not one of that.
        is_own = not failure.by_name or self.operation in _BY_NAME
        return is_own and failure.kind not in _FINAL

    def to_json(self) -> str:
        """Serialize all outcomes to a JSON text."""
        data = [
            {"ok": outcome.ok, **get_converter().unstructure(outcome, type(outcome))}
            for outcome in self
        ]
        return json.dumps({"operation": self.operation, "outcomes": data})

    @classmethod
    def from_json(cls, text: str, value_type: Any = None) -> Outcomes[Any]:
        """Load outcomes from a JSON text that `to_json` returned.

        Args:
            text: the JSON text.
            value_type: the type of the values; by default the one that the operation returns.

        Raises:
            ValueError: the text does not contain outcomes, or the type of its operation's values is
                unknown.
        """
        loaded: Any = json.loads(text)
        data = cast("dict[str, Any]", loaded if isinstance(loaded, dict) else {})
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

    __hash__: ClassVar[None]  # type: ignore[assignment]  # compared by content, like a list

    def __reduce__(self) -> tuple[Any, ...]:
        return Outcomes, (self.operation, tuple(self))

    def __repr__(self) -> str:
        return f"<Outcomes {self.operation}: {self._summarize()}>"

    def _build_grid(self) -> Grid:
        return build_outcome_grid(self.operation, self)

    def _build_view(self, limit: int) -> View:
        chosen = select_rows(self, lambda outcome: not outcome.ok, limit)
        caption = f"{self.operation}: {self._summarize()}"
        return build_view(build_outcome_grid(self.operation, chosen), caption, len(self))

    def _summarize(self) -> str:
        counts = self.counts()
        failed = counts.total()
        kinds = ", ".join(f"{kind}={count}" for kind, count in counts.most_common())
        return f"{len(self) - failed} ok" + (f", {failed} failed ({kinds})" if failed else "")


def get_targets(outcomes: Outcomes[Any]) -> list[str | Failure]:
    """Return the ids for a later operation, and the failures of launches without a session."""
    targets: list[str | Failure] = []
    for outcome in outcomes:
        key = outcomes._get_id(outcome)  # pyright: ignore[reportPrivateUsage]  # of this module
        if key is not None:
            targets.append(key)
        elif isinstance(outcome, Failure):
            targets.append(evolve(outcome, by_name=True))
    return targets


@final
class BatchError(KaledenError, ExceptionGroup[KaledenError]):
    """An exception group of the failed requests of one operation.

    Catch parts of it with ``except*``. The successes are in `outcomes`.

    Attributes:
        outcomes: every outcome of the operation, successes included.
    """

    outcomes: Outcomes[Any]

    def __new__(
        cls, message: str, errors: Sequence[KaledenError], outcomes: Outcomes[Any]
    ) -> BatchError:
        """Create the group; `BaseExceptionGroup` takes its arguments in ``__new__``."""
        self = super().__new__(cls, message, errors)
        self.outcomes = outcomes
        return self

    def __init__(
        self, message: str, errors: Sequence[KaledenError], outcomes: Outcomes[Any]
    ) -> None:
        super().__init__(message, errors, outcomes)  # type: ignore[call-arg]

    def __reduce__(self) -> tuple[Any, ...]:
        # The inherited method works too, except where tblib replaces it, as in a Dask program.
        return type(self), (self.message, self.exceptions, self.outcomes), vars(self)

    def derive(self, excs: Sequence[Any], /) -> BatchError:  # type: ignore[override]
        """Return a group of some of the exceptions, for ``except*`` and ``split``."""
        return BatchError(self.message, excs, self.outcomes)


def _load(item: dict[str, Any], value_type: Any) -> Outcome[Any]:
    if item.pop("ok"):
        return get_converter().structure(item, Success[value_type])

    return get_converter().structure(item, Failure)
