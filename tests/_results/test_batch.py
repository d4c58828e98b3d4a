"""`Outcomes` and `BatchError`: access, comparison, serialization and retries."""

from __future__ import annotations

import copy
import json
import pickle
from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kaleden
from kaleden import (
    BatchError,
    Event,
    Failure,
    FailureKind,
    InvalidRequest,
    KaledenError,
    NotFound,
    Outcomes,
    QuotaExceeded,
    RequestError,
    SessionInfo,
    SessionKind,
    SessionStatus,
    Success,
)

LOST = Failure("c", FailureKind.NOT_FOUND, "session c not found", 404, sent=True)
MIXED: Outcomes[str] = Outcomes("logs", [Success("a", "one"), LOST, Success("b", "two")])

failures = st.builds(
    Failure,
    key=st.text(max_size=80),
    kind=st.sampled_from(FailureKind),
    message=st.text(max_size=300),
    status=st.none() | st.integers(100, 599),
    retry_after=st.none() | st.floats(0, 1e6),
    sent=st.booleans(),
    attempts=st.integers(0, 20),
    elapsed=st.floats(0, 1e6),
)


def test_outcomes_keep_order_successes_and_failures() -> None:
    assert ["a", "c", "b"] == [outcome.key for outcome in MIXED]
    assert ["one", "two"] == MIXED.values
    assert {"a": "one", "b": "two"} == MIXED.successes
    assert {"c": LOST} == MIXED.failures
    assert (3, False) == (len(MIXED), MIXED.ok)
    assert LOST is MIXED["c"]
    assert "a" in MIXED
    assert "x" not in MIXED
    with pytest.raises(KeyError):
        MIXED["x"]


def test_truth_value_of_outcomes_is_refused_with_alternatives() -> None:
    with pytest.raises(TypeError, match=r"use \.ok, or len\(\)"):
        bool(MIXED)


def test_repr_counts_failures_by_kind() -> None:
    assert "<Outcomes logs: 2 ok, 1 failed (not_found=1)>" == repr(MIXED)
    assert "<Outcomes logs: 0 ok>" == repr(Outcomes("logs", []))


def test_ids_are_new_ids_after_create_and_keys_otherwise() -> None:
    created = Outcomes[str](
        "create", [Success("fits-1", "k3jd92xa"), attrs.evolve(LOST, key="fits-2")]
    )
    assert ["k3jd92xa"] == created.ids
    assert ["a", "c", "b"] == MIXED.ids


def test_equality_ignores_elapsed_time() -> None:
    assert MIXED == Outcomes("logs", [attrs.evolve(outcome, elapsed=9.0) for outcome in MIXED])
    assert MIXED != Outcomes("info", MIXED)
    assert MIXED != Outcomes("logs", list(MIXED)[::-1])
    assert MIXED != list(MIXED)


def test_raise_on_failure_returns_the_outcomes_without_failures() -> None:
    fine = Outcomes("logs", [Success("a", "one")])
    assert fine is fine.raise_on_failure()


def test_batch_error_is_a_group_with_all_outcomes() -> None:
    with pytest.raises(
        BatchError, match="1 of 3 logs requests failed: c: session c not found"
    ) as caught:
        MIXED.raise_on_failure()
    assert isinstance(caught.value, KaledenError)
    assert MIXED is caught.value.outcomes
    assert [NotFound] == [type(error) for error in caught.value.exceptions]


def test_parts_of_a_batch_error_keep_the_outcomes() -> None:
    quota = Failure("d", FailureKind.QUOTA, "maximum reached", 400)
    outcomes = Outcomes[str]("create", [LOST, quota])
    seen: dict[str, BatchError] = {}
    try:
        outcomes.raise_on_failure()
    except* QuotaExceeded as group:
        assert isinstance(group, BatchError)
        seen["quota"] = group
    except* RequestError as group:
        assert isinstance(group, BatchError)
        seen["rest"] = group
    assert [outcomes, outcomes] == [part.outcomes for part in seen.values()]
    assert ["d"] == [error.failure.key for error in seen["quota"].exceptions]  # type: ignore[union-attr]
    assert ["c"] == [error.failure.key for error in seen["rest"].exceptions]  # type: ignore[union-attr]


def test_batch_error_survives_pickle_and_copy() -> None:
    with pytest.raises(BatchError) as caught:
        MIXED.raise_on_failure()
    caught.value.add_note("a note")
    for copied in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert isinstance(copied, BatchError)
        assert (str(caught.value), MIXED) == (str(copied), copied.outcomes)
        assert LOST == copied.exceptions[0].failure  # type: ignore[union-attr]
        assert ["a note"] == copied.__notes__


def test_batch_error_can_be_rebuilt_from_its_arguments() -> None:
    """Some libraries pickle exceptions themselves, and use only the first two items."""
    with pytest.raises(BatchError) as caught:
        MIXED.raise_on_failure()
    make, arguments, *_ = caught.value.__reduce__()
    copied = make(*arguments)
    assert (str(caught.value), MIXED) == (str(copied), copied.outcomes)
    assert [caught.value.message, MIXED] == [caught.value.args[0], caught.value.args[2]]
    assert caught.value.exceptions == tuple(caught.value.args[1])


@pytest.mark.parametrize("kind", FailureKind)
def test_every_kind_has_an_exception(kind: FailureKind) -> None:
    error = Failure("a", kind, "what happened", 500).to_exception()
    assert f"a: what happened ({kind}, HTTP 500)" == str(error)
    assert isinstance(error, KaledenError)
    if isinstance(error, RequestError):
        assert kind == error.failure.kind
        assert kind == type(error).kind
    else:
        assert (InvalidRequest, FailureKind.INVALID) == (type(error), kind)


@given(failures)
def test_failures_survive_pickle_copy_and_json(failure: Failure) -> None:
    same = (
        pickle.loads(pickle.dumps(failure)),
        copy.deepcopy(failure),
        Outcomes.from_json(Outcomes("info", [failure]).to_json())[failure.key],
    )
    assert (failure,) * 3 == same
    assert all(failure.elapsed == other.elapsed for other in same)


def test_pickled_failure_is_small() -> None:
    failure = Failure("k3jd92xa", FailureKind.SERVER_ERROR, "x" * 500, 500, 30.0, sent=True)
    assert len(pickle.dumps(failure)) < 1024


def test_exceptions_survive_pickle() -> None:
    error = LOST.to_exception()
    copied = pickle.loads(pickle.dumps(error))
    assert (type(error), str(error)) == (type(copied), str(copied))


INFO = SessionInfo(
    id="k3jd92xa",
    name="fits-1",
    kind=SessionKind("vscode"),
    status=SessionStatus.RUNNING,
    start_time=datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC),
    requested_ram=4_290_000_000,
    groups=(20001,),
    raw={"id": "k3jd92xa", "new": [None]},
)
EVENT = Event("Normal", "Scheduled", "assigned", datetime(2026, 8, 1, tzinfo=UTC), None)


@pytest.mark.parametrize(
    "outcomes",
    [
        Outcomes[object]("create", [Success("fits-1", "k3jd92xa"), LOST]),
        Outcomes[object]("info", [Success("k3jd92xa", INFO), LOST]),
        Outcomes[object]("events", [Success("k3jd92xa", (EVENT, EVENT)), Success("b", ())]),
        Outcomes("destroy", [Success("a", True)]),
        Outcomes("renew", [Success("a", True, 2, 0.5)]),
        MIXED,
        Outcomes("logs", []),
    ],
    ids=lambda outcomes: outcomes.operation,
)
def test_outcomes_survive_json_pickle_and_copy(outcomes: Outcomes[object]) -> None:
    assert outcomes == Outcomes.from_json(outcomes.to_json())
    assert outcomes == pickle.loads(pickle.dumps(outcomes))
    assert outcomes == copy.deepcopy(outcomes)
    json.loads(outcomes.to_json())


def test_json_keeps_the_raw_object() -> None:
    loaded = Outcomes.from_json(Outcomes("info", [Success("k3jd92xa", INFO)]).to_json())
    assert INFO.raw == loaded.values[0].raw


def test_other_values_require_their_type() -> None:
    outcomes = Outcomes("mine", [Success("a", 5)])
    assert outcomes == Outcomes.from_json(outcomes.to_json(), int)
    with pytest.raises(ValueError, match="give the type of their values"):
        Outcomes.from_json(outcomes.to_json())
    with pytest.raises(ValueError, match="not known"):
        Outcomes.from_json("[]")


async def test_loaded_outcomes_refuse_a_retry() -> None:
    with pytest.raises(RuntimeError, match="loaded"):
        await MIXED.retry_failed()


async def test_launch_with_unknown_effect_is_not_retried() -> None:
    asked: list[str] = []

    async def again(keys: object) -> Outcomes[str]:
        asked.extend(keys)  # type: ignore[arg-type]
        return Outcomes("create", [Success(key, "id") for key in asked])

    kinds = [
        FailureKind.UNKNOWN_EFFECT,
        FailureKind.CONNECT_FAILED,
        FailureKind.INVALID,
        FailureKind.QUOTA,
    ]
    outcomes: Outcomes[str] = Outcomes(
        "create", [Failure(kind, kind, "…") for kind in kinds], again=again
    )
    later = await outcomes.retry_failed()
    assert ["connect_failed", "quota"] == asked
    assert [False, True, False, True] == [outcome.ok for outcome in later]


def test_html_table_is_escaped_and_bounded() -> None:
    nasty = "<script>alert(1)</script>"
    table = Outcomes[str](
        "logs", [Success(nasty, nasty), attrs.evolve(LOST, message=nasty)]
    )._repr_html_()
    assert "<script>" not in table
    assert 3 == table.count("&lt;script&gt;")
    long = Outcomes("logs", [Success(str(number), "text") for number in range(1000)])._repr_html_()
    assert 1 + 100 == long.count("<tr>")
    assert "900 more" in long


def test_ok_distinguishes_success_and_failure() -> None:
    assert Success("a", 1).ok
    assert not LOST.ok
    assert isinstance(kaleden.Failure("a", FailureKind.QUOTA, ""), Failure)
