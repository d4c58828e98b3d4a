"""The state machine of sessions, with times given by the tests."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kaleden.local import (
    Forget,
    HTTPError,
    Kind,
    Phase,
    Platform,
    Session,
    Settings,
    Spec,
    Start,
    Status,
    Stop,
)
from kaleden.local._platform._model import DAY, GIB, HOUR

NOW = 1_790_000_000.0
JOB = Spec(Kind.HEADLESS, "job", "image", 1000, GIB, 1000, GIB)
NOTEBOOK = evolve(JOB, kind=Kind.NOTEBOOK)
DESKTOP = evolve(JOB, kind=Kind.DESKTOP)
APP = evolve(JOB, kind=Kind.DESKTOP_APP)


def make_platform(cores: int = 4, ram: int = 64, **options: Any) -> Platform:
    settings = Settings(millicores=1000 * cores, ram=ram * GIB)
    return Platform(evolve(settings, **options), random.Random(0))


def get_status(session: Session) -> Status:
    """Return the status. Type checkers assume that a property keeps its value after a test."""
    return session.status


def list_reasons(session: Session) -> list[str]:
    return [event.reason for event in session.events]


def start_session(platform: Platform, spec: Spec = JOB) -> Session:
    session = platform.create("ada", spec, NOW)
    platform.started(session.key, NOW)
    assert Status.RUNNING == session.status
    return session


def test_id_is_letter_then_seven_letters_or_digits() -> None:
    platform = make_platform(cores=1)
    ids = [platform.create("ada", JOB, NOW).id for _ in range(200)]
    assert 200 == len(set(ids))
    assert all(re.fullmatch("[a-z][a-z0-9]{7}", id_) for id_ in ids)


def test_session_with_capacity_is_started_and_pending_until_then() -> None:
    platform = make_platform()
    session = platform.create("ada", JOB, NOW)
    assert [Start(session)] == platform.take_orders()
    assert (Status.PENDING, NOW) == (session.status, session.started)
    platform.started(session.key, NOW + 1)
    assert Status.RUNNING == session.status
    assert ["Scheduled", "Started"] == list_reasons(session)


@pytest.mark.parametrize(
    ("code", "status"), [(0, Status.COMPLETED), (1, Status.FAILED), (None, Status.FAILED)]
)
def test_exit_status_decides_between_completed_and_failed(code: int | None, status: Status) -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.ended(session.key, NOW + 5, code)
    assert (status, NOW + 5) == (session.status, session.ended)


def test_quick_session_goes_from_pending_to_completed() -> None:
    platform = make_platform()
    session = platform.create("ada", JOB, NOW)
    platform.ended(session.key, NOW, 0)
    assert Status.COMPLETED == session.status


def test_interactive_session_runs_at_once_without_process() -> None:
    platform = make_platform()
    session = platform.create("ada", NOTEBOOK, NOW)
    assert Status.RUNNING == session.status
    assert [] == platform.take_orders()


def test_warning_at_end_becomes_event() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.ended(session.key, NOW, None, ("OOMKilled", "too much"))
    assert ("Warning", "OOMKilled", "too much") == (
        session.events[-1].type,
        session.events[-1].reason,
        session.events[-1].message,
    )


def test_session_without_capacity_is_queued_without_pod() -> None:
    platform = make_platform(cores=1)
    first = start_session(platform)
    second = platform.create("ada", JOB, NOW)
    assert (Phase.QUEUED, None, None) == (second.phase, second.started, second.expires)
    assert not second.has_pod
    platform.take_orders()

    platform.ended(first.key, NOW + 9, 0)
    assert [Start(second)] == platform.take_orders()
    assert NOW + 9 == second.started
    assert second.has_pod


@pytest.mark.parametrize(
    ("asked", "shortage"),
    [
        (JOB, "0/1 nodes are available: 1 Insufficient cpu."),
        (evolve(JOB, ram=65 * GIB), "1 Insufficient cpu, 1 Insufficient memory."),
    ],
)
def test_session_without_capacity_and_queue_has_event_with_reason(
    asked: Spec, shortage: str
) -> None:
    platform = make_platform(cores=1, queue=False)
    first = start_session(platform)
    second = platform.create("ada", asked, NOW + 1)
    assert (Status.PENDING, True, NOW + 1) == (second.status, second.has_pod, second.started)
    assert ["FailedScheduling"] == list_reasons(second)
    assert second.events[0].message.endswith(shortage)

    if asked is JOB:
        platform.ended(first.key, NOW + 9, 0)
        assert ["FailedScheduling", "Scheduled"] == list_reasons(second)
        assert NOW + 1 == second.started


def test_sessions_are_admitted_in_order() -> None:
    platform = make_platform(cores=2)
    start_session(platform)
    big = platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    assert (Phase.QUEUED, Phase.QUEUED) == (big.phase, small.phase)


def test_session_behind_another_has_event_with_reason() -> None:
    platform = make_platform(cores=2, queue=False)
    start_session(platform)
    platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    assert "0/1 nodes are available: 1 pod waits before this one." == small.events[0].message


def test_deleting_queued_session_admits_next() -> None:
    platform = make_platform(cores=2)
    start_session(platform)
    big = platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    platform.take_orders()
    assert platform.delete("ada", big.id, NOW)
    assert [Forget(big.key), Start(small)] == platform.take_orders()


def test_deleted_session_is_unlisted_at_once_and_keeps_capacity_until_ended() -> None:
    platform = make_platform(cores=1)
    first = start_session(platform)
    second = platform.create("ada", JOB, NOW)
    platform.take_orders()
    platform.delete("ada", first.id, NOW)
    assert [second] == list(platform.of_user("ada"))
    assert platform.find("ada", first.id) is None
    assert [Stop(first.key)] == platform.take_orders()
    assert Phase.QUEUED == second.phase

    platform.ended(first.key, NOW + 1, None)
    assert [Forget(first.key), Start(second)] == platform.take_orders()


def test_finished_session_is_deleted_with_files() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.ended(session.key, NOW, 0)
    platform.take_orders()
    platform.delete("ada", session.id, NOW)
    assert [Forget(session.key)] == platform.take_orders()


def test_deleted_interactive_session_releases_capacity() -> None:
    platform = make_platform(cores=1)
    session = platform.create("ada", NOTEBOOK, NOW)
    waiting = platform.create("ada", JOB, NOW)
    platform.delete("ada", session.id, NOW)
    assert [Forget(session.key), Start(waiting)] == platform.take_orders()


def test_deleting_unknown_or_foreign_session_does_nothing() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.take_orders()
    assert not platform.delete("ada", "nothere0", NOW)
    assert not platform.delete("bob", session.id, NOW)
    assert [] == platform.take_orders()
    assert Status.RUNNING == session.status


@pytest.mark.parametrize(("spec", "kept"), [(JOB, HOUR), (NOTEBOOK, DAY)])
def test_finished_session_is_forgotten_after_its_time(spec: Spec, kept: float) -> None:
    platform = make_platform(headless_lifetime=60.0, interactive_lifetime=60.0)
    session = start_session(platform, spec)
    platform.advance(NOW + 60)
    platform.ended(session.key, NOW + 60, None)
    platform.advance(NOW + 60 + kept - 1)
    assert session is platform.find("ada", session.id)
    platform.take_orders()

    platform.advance(NOW + 60 + kept)
    assert platform.find("ada", session.id) is None
    assert [Forget(session.key)] == platform.take_orders()


def test_headless_session_past_deadline_is_terminating_then_failed() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.take_orders()
    platform.advance(NOW + 14 * DAY - 1)
    assert Status.RUNNING == get_status(session)
    platform.advance(NOW + 14 * DAY)
    assert (Status.TERMINATING, [Stop(session.key)]) == (
        get_status(session),
        platform.take_orders(),
    )
    platform.advance(NOW + 15 * DAY)
    assert Status.TERMINATING == get_status(session)

    platform.ended(session.key, NOW + 15 * DAY, 0)
    assert Status.FAILED == get_status(session)
    assert "DeadlineExceeded" == list_reasons(session)[-1]


def test_interactive_session_past_deadline_is_failed() -> None:
    platform = make_platform()
    session = start_session(platform, NOTEBOOK)
    platform.advance(NOW + 4 * DAY)
    assert Status.FAILED == session.status
    assert (0, 0) == platform.reserved


def test_unscheduled_session_past_deadline_is_failed_without_capacity() -> None:
    platform = make_platform(cores=1, queue=False, headless_lifetime=60.0)
    start_session(platform, NOTEBOOK)
    waiting = platform.create("ada", JOB, NOW)
    platform.advance(NOW + 60)
    assert Status.FAILED == waiting.status
    assert (1000, GIB) == platform.reserved


def test_renewed_session_gets_full_lifetime() -> None:
    platform = make_platform()
    session = start_session(platform, NOTEBOOK)
    platform.renew("ada", session.id, NOW + DAY)
    assert NOW + 5 * DAY == session.expires
    platform.advance(NOW + 4 * DAY)
    assert Status.RUNNING == get_status(session)
    platform.advance(NOW + 5 * DAY)
    assert Status.FAILED == get_status(session)


def test_renewing_does_not_shorten_lifetime() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.renew("ada", session.id, NOW + DAY)
    assert NOW + 14 * DAY == session.expires
    platform.renew("ada", session.id, NOW + 13 * DAY)
    assert NOW + 17 * DAY == session.expires


def test_only_active_sessions_can_be_renewed() -> None:
    platform = make_platform(cores=1)
    finished = start_session(platform)
    platform.ended(finished.key, NOW, 0)
    start_session(platform)
    queued = platform.create("ada", JOB, NOW)
    for id_ in (finished.id, queued.id, "nothere0"):
        with pytest.raises(HTTPError, match=f"No active job for user ada with session {id_}"):
            platform.renew("ada", id_, NOW)


def test_limit_counts_active_interactive_sessions_of_user() -> None:
    platform = make_platform(cores=3, max_interactive_sessions=3)
    start_session(platform)
    for _ in range(3):
        platform.create("ada", NOTEBOOK, NOW)
    with pytest.raises(HTTPError, match=r"User ada has reached the maximum of 3 active sessions\."):
        platform.create("ada", NOTEBOOK, NOW)
    platform.create("ada", JOB, NOW)
    platform.create("bob", NOTEBOOK, NOW)


def test_limit_ignores_finished_sessions() -> None:
    platform = make_platform(max_interactive_sessions=1)
    platform.create("ada", NOTEBOOK, NOW)
    platform.advance(NOW + 4 * DAY)
    assert Status.RUNNING == platform.create("ada", NOTEBOOK, NOW + 4 * DAY).status


def test_desktop_apps_need_running_desktop_and_share_its_life() -> None:
    platform = make_platform()
    desktop = start_session(platform, DESKTOP)
    app = platform.create_app("ada", desktop.id, APP, NOW)
    assert (desktop.id, 3) == (app.id, len(app.appid or ""))
    assert app is platform.find("ada", desktop.id, app.appid)

    platform.renew("ada", desktop.id, NOW + DAY)
    assert desktop.expires == app.expires
    platform.delete("ada", desktop.id, NOW + DAY)
    assert [] == list(platform.of_user("ada"))
    assert (0, 0) == platform.reserved


@pytest.mark.parametrize("spec", [None, NOTEBOOK])
def test_desktop_app_without_desktop_gets_404(spec: Spec | None) -> None:
    platform = make_platform()
    id_ = "nothere0" if spec is None else start_session(platform, spec).id
    with pytest.raises(HTTPError) as caught:
        platform.create_app("ada", id_, APP, NOW)
    assert 404 == caught.value.status


def test_users_do_not_see_each_other() -> None:
    platform = make_platform()
    session = start_session(platform)
    assert platform.find("bob", session.id) is None
    assert [] == list(platform.of_user("bob"))
    assert [session] == list(platform.everyones())


def test_reports_about_removed_sessions_are_ignored() -> None:
    platform = make_platform()
    platform.started("nothere0", NOW)
    platform.measured("nothere0", 1, 1.0)
    platform.ended("nothere0", NOW, 0)
    assert {} == platform.count()


def test_measurements_are_kept_while_session_runs() -> None:
    platform = make_platform()
    session = start_session(platform)
    platform.measured(session.key, 5, 0.5)
    assert (5, 0.5) == (session.ram_in_use, session.cores_in_use)
    platform.ended(session.key, NOW, 0)
    platform.measured(session.key, 5, 0.5)
    assert (None, None) == (session.ram_in_use, session.cores_in_use)


def test_closed_platform_starts_nothing() -> None:
    platform = make_platform(cores=1)
    first = start_session(platform)
    second = platform.create("ada", JOB, NOW)
    platform.take_orders()
    platform.close()
    platform.ended(first.key, NOW, None)
    assert ([], Phase.QUEUED) == (platform.take_orders(), second.phase)


def test_changes_are_reported_once_with_none_for_removed_sessions() -> None:
    platform = make_platform()
    session = start_session(platform)
    assert [(session.key, session)] == platform.take_changes()
    assert [] == platform.take_changes()
    platform.delete("ada", session.id, NOW)
    assert [(session.key, None)] == platform.take_changes()


@pytest.mark.parametrize(("millicores", "ram"), [(999, GIB), (1000, GIB - 1)])
def test_platform_too_small_for_any_session_is_rejected(millicores: int, ram: int) -> None:
    with pytest.raises(ValueError, match="at least 1 core and 1 GiB"):
        Settings(millicores=millicores, ram=ram)


def test_expiring_session_can_be_deleted_and_is_stopped_once() -> None:
    platform = make_platform(cores=1)
    session = start_session(platform)
    platform.advance(NOW + 14 * DAY)
    platform.take_orders()
    platform.delete("ada", session.id, NOW + 14 * DAY)
    platform.advance(NOW + 20 * DAY)
    assert [Stop(session.key)] == platform.take_orders()
    platform.ended(session.key, NOW + 20 * DAY, None)
    assert (0, 0) == platform.reserved


def test_restored_platform_fails_running_and_queues_waiting_sessions() -> None:
    before = make_platform(cores=3)
    notebook, ran = start_session(before, NOTEBOOK), start_session(before)
    finished = start_session(before)
    before.ended(finished.key, NOW, 0)
    start_session(before)
    waits = before.create("ada", JOB, NOW + 1)

    after = make_platform(cores=3)
    after.restore(before.everyones(), NOW + 2)
    assert (Status.FAILED, "NodeNotReady") == (ran.status, list_reasons(ran)[-1])
    assert Status.COMPLETED == finished.status
    assert Status.RUNNING == notebook.status
    assert [Start(waits)] == after.take_orders()
    assert (2000, 2 * GIB) == after.reserved


def test_restored_platform_advances_past_its_downtime() -> None:
    before = make_platform()
    session = start_session(before)
    before.ended(session.key, NOW, 0)
    after = make_platform()
    after.restore(before.everyones(), NOW + HOUR)
    assert [] == list(after.everyones())


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_status(phase: Phase) -> None:
    assert Session("a", "ada", JOB, NOW, DAY, phase=phase).status in Status


class PlatformMachine(RuleBasedStateMachine):
    """Random changes in random order: reserved capacity is correct, and sessions are admitted."""

    def __init__(self) -> None:
        super().__init__()
        self.platform = make_platform(cores=3, ram=3)
        self.now = NOW
        self.alive: set[str] = set()

    def execute_orders(self) -> None:
        for order in self.platform.take_orders():
            if isinstance(order, Start):
                assert order.session.key not in self.alive
                self.alive.add(order.session.key)
            elif isinstance(order, Forget):
                assert order.key not in self.alive

    @rule(kind=st.sampled_from([Kind.HEADLESS, Kind.NOTEBOOK]), cores=st.integers(1, 3))
    def create(self, kind: Kind, cores: int) -> None:
        try:
            spec = evolve(JOB, kind=kind, millicores=1000 * cores)
            self.platform.create("ada", spec, self.now)
        except HTTPError:
            assert Kind.NOTEBOOK is kind
        self.execute_orders()

    @precondition(lambda self: any(self.platform.everyones()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(list(self.platform.everyones())))
        self.platform.delete("ada", session.id, self.now)
        self.execute_orders()

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 1, None]))
    def end(self, data: st.DataObject, code: int | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(key)
        self.platform.ended(key, self.now, code)
        self.execute_orders()

    @rule(seconds=st.sampled_from([1.0, HOUR, DAY, 15 * DAY]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.platform.advance(self.now)
        self.execute_orders()

    @invariant()
    def check_reserved_capacity(self) -> None:
        millicores, ram = self.platform.reserved
        assert 0 <= millicores <= 3000
        assert 0 <= ram <= 3 * GIB
        held = [s for s in self.platform.everyones() if s.phase.holding]
        assert sum(s.spec.millicores for s in held) <= millicores
        assert {s.key for s in held if s.spec.kind is Kind.HEADLESS} <= self.alive
        if not self.alive and not held:
            assert (0, 0) == (millicores, ram)

    @invariant()
    def check_waiting_sessions(self) -> None:
        if not self.alive and not any(s.phase.holding for s in self.platform.everyones()):
            assert not any(s.phase.waiting for s in self.platform.everyones())


TestPlatformMachine = PlatformMachine.TestCase
# No deadline: the duration of a step depends on the machine, not on the platform.
TestPlatformMachine.settings = settings(deadline=None)
