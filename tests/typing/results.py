"""What a type checker is to say of results, and of telling successes from failures. Never run."""
# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal, assert_never, assert_type

from kaleden import (
    BatchError,
    Failure,
    FailureKind,
    FinishedSession,
    InvalidRequest,
    KaledenError,
    LogItem,
    LogLine,
    LogReset,
    Outcome,
    Outcomes,
    RequestError,
    SessionInfo,
    SessionKind,
    SessionList,
    SessionStatus,
    Success,
    distributed,
)


def by_match(outcome: Outcome[SessionInfo]) -> None:
    match outcome:
        case Success(value=value):
            assert_type(outcome, Success[SessionInfo])
            assert_type(value, SessionInfo)
        case Failure(kind=kind):
            assert_type(outcome, Failure)
            assert_type(kind, FailureKind)
        case _:
            assert_never(outcome)


def by_isinstance(outcome: Outcome[str]) -> None:
    if isinstance(outcome, Failure):
        assert_type(outcome.message, str)
    else:
        assert_type(outcome, Success[str])


def by_ok(outcome: Outcome[str]) -> None:
    if outcome.ok is True:
        assert_type(outcome, Success[str])
    else:
        assert_type(outcome, Failure)
    assert_type(outcome.ok, bool)


def lines_by_match(item: LogItem) -> None:
    match item:
        case LogLine(text=text):
            assert_type(text, str)
        case LogReset(id=key):
            assert_type(key, str)
        case Failure():
            assert_type(item, Failure)
        case _:
            assert_never(item)


def of_outcomes(outcomes: Outcomes[FinishedSession]) -> None:
    assert_type(outcomes.ok, bool)
    assert_type(outcomes.operation, str)
    assert_type(outcomes.values, list[FinishedSession])
    assert_type(outcomes.successes, dict[str, FinishedSession])
    assert_type(outcomes.failures, dict[str, Failure])
    assert_type(outcomes.ids, list[str])
    assert_type(outcomes.counts(), Counter[FailureKind])
    assert_type(outcomes.raise_on_failure(), Outcomes[FinishedSession])
    assert_type(outcomes["abc"], Success[FinishedSession] | Failure)
    assert_type(iter(outcomes), Iterator[Success[FinishedSession] | Failure])
    assert_type(outcomes.to_json(), str)
    assert_type(outcomes.to_dicts(), list[dict[str, Any]])
    assert_type(outcomes.to_pandas(), Any)
    assert_type(outcomes.to_table(), Any)
    assert_type(Outcomes.from_json("{}"), Outcomes[Any])


async def again(outcomes: Outcomes[str]) -> None:
    assert_type(await outcomes.retry_failed(), Outcomes[str])


def of_what_is_in_them(info: SessionInfo, finished: FinishedSession, failure: Failure) -> None:
    assert_type(info.status, SessionStatus)
    assert_type(info.kind, SessionKind)
    assert_type(info.start_time, datetime | None)
    assert_type(info.raw, dict[str, Any])
    assert_type(finished.info, SessionInfo)
    assert_type(failure.ok, Literal[False])
    assert_type(failure.to_exception(), RequestError | InvalidRequest)


def of_lists(infos: SessionList) -> None:
    assert_type(infos[0], SessionInfo)
    assert_type(infos.to_dicts(), list[dict[str, Any]])
    assert_type(infos.to_pandas(), Any)
    assert_type(infos.to_table(), Any)


def of_errors(outcomes: Outcomes[str]) -> None:
    try:
        outcomes.raise_on_failure()
    except* RequestError as group:
        assert_type(group.exceptions[0], RequestError | ExceptionGroup[RequestError])
    try:
        outcomes.raise_on_failure()
    except BatchError as error:
        assert_type(error.outcomes, Outcomes[Any])
    except KaledenError:
        pass


def of_shares(files: list[str]) -> None:
    assert_type(distributed.chunk(files), Sequence[str])
    assert_type(distributed.stripe(files), Iterator[str])


def these_are_mistakes(outcomes: Outcomes[str], outcome: Outcome[str]) -> None:
    print(outcome.value)  # type: ignore[union-attr]
    outcome.ok = True  # type: ignore[misc]
    print(outcomes[0])  # type: ignore[index]
    Success("a", 1).value.upper()  # type: ignore[attr-defined]
