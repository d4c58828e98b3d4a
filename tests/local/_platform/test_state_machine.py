"""The state machine: what happens to sessions, with the time told to it."""

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


def make(cores: int = 4, ram: int = 64, **options: Any) -> Platform:
    settings = Settings(millicores=1000 * cores, ram=ram * GIB)
    return Platform(evolve(settings, **options), random.Random(0))


def status(session: Session) -> Status:
    """What is told of it now; type checkers take a property to be what it was."""
    return session.status


def reasons(session: Session) -> list[str]:
    return [event.reason for event in session.events]


def running(platform: Platform, spec: Spec = JOB) -> Session:
    session = platform.create("ada", spec, NOW)
    platform.started(session.key, NOW)
    assert Status.RUNNING == session.status
    return session


def test_an_id_is_a_letter_and_seven_letters_or_digits() -> None:
    platform = make(cores=1)
    ids = [platform.create("ada", JOB, NOW).id for _ in range(200)]
    assert 200 == len(set(ids))
    assert all(re.fullmatch("[a-z][a-z0-9]{7}", id_) for id_ in ids)


def test_a_session_with_room_is_ordered_to_start_and_pending_until_it_has() -> None:
    platform = make()
    session = platform.create("ada", JOB, NOW)
    assert [Start(session)] == platform.take_orders()
    assert (Status.PENDING, NOW) == (session.status, session.started)
    platform.started(session.key, NOW + 1)
    assert Status.RUNNING == session.status
    assert ["Scheduled", "Started"] == reasons(session)


@pytest.mark.parametrize(
    ("code", "status"), [(0, Status.COMPLETED), (1, Status.FAILED), (None, Status.FAILED)]
)
def test_the_exit_status_decides_between_completed_and_failed(
    code: int | None, status: Status
) -> None:
    platform = make()
    session = running(platform)
    platform.ended(session.key, NOW + 5, code)
    assert (status, NOW + 5) == (session.status, session.ended)


def test_a_quick_session_goes_from_pending_to_completed() -> None:
    platform = make()
    session = platform.create("ada", JOB, NOW)
    platform.ended(session.key, NOW, 0)
    assert Status.COMPLETED == session.status


def test_an_interactive_session_runs_at_once_and_needs_no_process() -> None:
    platform = make()
    session = platform.create("ada", NOTEBOOK, NOW)
    assert Status.RUNNING == session.status
    assert [] == platform.take_orders()


def test_a_reason_for_the_end_is_an_event() -> None:
    platform = make()
    session = running(platform)
    platform.ended(session.key, NOW, None, ("OOMKilled", "too much"))
    assert ("Warning", "OOMKilled", "too much") == (
        session.events[-1].type,
        session.events[-1].reason,
        session.events[-1].message,
    )


def test_who_finds_no_room_waits_in_the_queue_without_a_pod_and_starts_when_there_is() -> None:
    platform = make(cores=1)
    first = running(platform)
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
def test_without_a_queue_who_finds_no_room_has_a_pod_with_an_event_that_says_why(
    asked: Spec, shortage: str
) -> None:
    platform = make(cores=1, queue=False)
    first = running(platform)
    second = platform.create("ada", asked, NOW + 1)
    assert (Status.PENDING, True, NOW + 1) == (second.status, second.has_pod, second.started)
    assert ["FailedScheduling"] == reasons(second)
    assert second.events[0].message.endswith(shortage)

    if asked is JOB:
        platform.ended(first.key, NOW + 9, 0)
        assert ["FailedScheduling", "Scheduled"] == reasons(second)
        assert NOW + 1 == second.started


def test_room_is_given_strictly_in_order() -> None:
    platform = make(cores=2)
    running(platform)
    big = platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    assert (Phase.QUEUED, Phase.QUEUED) == (big.phase, small.phase)


def test_the_one_behind_is_told_that_it_waits_for_another() -> None:
    platform = make(cores=2, queue=False)
    running(platform)
    platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    assert "0/1 nodes are available: 1 pod waits before this one." == small.events[0].message


def test_deleting_who_waits_lets_the_next_in() -> None:
    platform = make(cores=2)
    running(platform)
    big = platform.create("ada", evolve(JOB, millicores=2000), NOW)
    small = platform.create("ada", JOB, NOW)
    platform.take_orders()
    assert platform.delete("ada", big.id, NOW)
    assert [Forget(big.key), Start(small)] == platform.take_orders()


def test_a_deleted_session_is_out_of_the_list_at_once_and_holds_its_room_until_it_has_ended() -> (
    None
):
    platform = make(cores=1)
    first = running(platform)
    second = platform.create("ada", JOB, NOW)
    platform.take_orders()
    platform.delete("ada", first.id, NOW)
    assert [second] == list(platform.of_user("ada"))
    assert platform.find("ada", first.id) is None
    assert [Stop(first.key)] == platform.take_orders()
    assert Phase.QUEUED == second.phase

    platform.ended(first.key, NOW + 1, None)
    assert [Forget(first.key), Start(second)] == platform.take_orders()


def test_a_finished_session_is_deleted_with_its_files() -> None:
    platform = make()
    session = running(platform)
    platform.ended(session.key, NOW, 0)
    platform.take_orders()
    platform.delete("ada", session.id, NOW)
    assert [Forget(session.key)] == platform.take_orders()


def test_a_deleted_interactive_session_gives_its_room_back() -> None:
    platform = make(cores=1)
    session = platform.create("ada", NOTEBOOK, NOW)
    waiting = platform.create("ada", JOB, NOW)
    platform.delete("ada", session.id, NOW)
    assert [Forget(session.key), Start(waiting)] == platform.take_orders()


def test_deleting_what_is_not_there_or_not_ones_own_does_nothing() -> None:
    platform = make()
    session = running(platform)
    platform.take_orders()
    assert not platform.delete("ada", "nothere0", NOW)
    assert not platform.delete("bob", session.id, NOW)
    assert [] == platform.take_orders()
    assert Status.RUNNING == session.status


@pytest.mark.parametrize(("spec", "kept"), [(JOB, HOUR), (NOTEBOOK, DAY)])
def test_a_finished_session_is_forgotten_after_its_time(spec: Spec, kept: float) -> None:
    platform = make(headless_lifetime=60.0, interactive_lifetime=60.0)
    session = running(platform, spec)
    platform.advance(NOW + 60)
    platform.ended(session.key, NOW + 60, None)
    platform.advance(NOW + 60 + kept - 1)
    assert session is platform.find("ada", session.id)
    platform.take_orders()

    platform.advance(NOW + 60 + kept)
    assert platform.find("ada", session.id) is None
    assert [Forget(session.key)] == platform.take_orders()


def test_a_headless_session_past_its_deadline_is_terminating_and_then_failed() -> None:
    platform = make()
    session = running(platform)
    platform.take_orders()
    platform.advance(NOW + 14 * DAY - 1)
    assert Status.RUNNING == status(session)
    platform.advance(NOW + 14 * DAY)
    assert (Status.TERMINATING, [Stop(session.key)]) == (status(session), platform.take_orders())
    platform.advance(NOW + 15 * DAY)
    assert Status.TERMINATING == status(session)

    platform.ended(session.key, NOW + 15 * DAY, 0)
    assert Status.FAILED == status(session)
    assert "DeadlineExceeded" == reasons(session)[-1]


def test_an_interactive_session_past_its_deadline_is_failed() -> None:
    platform = make()
    session = running(platform, NOTEBOOK)
    platform.advance(NOW + 4 * DAY)
    assert Status.FAILED == session.status
    assert (0, 0) == platform.reserved


def test_an_unscheduled_session_past_its_deadline_is_failed_and_takes_no_room() -> None:
    platform = make(cores=1, queue=False, headless_lifetime=60.0)
    running(platform, NOTEBOOK)
    waiting = platform.create("ada", JOB, NOW)
    platform.advance(NOW + 60)
    assert Status.FAILED == waiting.status
    assert (1000, GIB) == platform.reserved


def test_a_renewed_session_lives_a_full_lifetime_from_then() -> None:
    platform = make()
    session = running(platform, NOTEBOOK)
    platform.renew("ada", session.id, NOW + DAY)
    assert NOW + 5 * DAY == session.expires
    platform.advance(NOW + 4 * DAY)
    assert Status.RUNNING == status(session)
    platform.advance(NOW + 5 * DAY)
    assert Status.FAILED == status(session)


def test_renewing_does_not_shorten() -> None:
    platform = make()
    session = running(platform)
    platform.renew("ada", session.id, NOW + DAY)
    assert NOW + 14 * DAY == session.expires
    platform.renew("ada", session.id, NOW + 13 * DAY)
    assert NOW + 17 * DAY == session.expires


def test_only_active_sessions_can_be_renewed() -> None:
    platform = make(cores=1)
    finished = running(platform)
    platform.ended(finished.key, NOW, 0)
    running(platform)
    queued = platform.create("ada", JOB, NOW)
    for id_ in (finished.id, queued.id, "nothere0"):
        with pytest.raises(HTTPError, match=f"No active job for user ada with session {id_}"):
            platform.renew("ada", id_, NOW)


def test_the_limit_counts_active_interactive_sessions_of_the_user() -> None:
    platform = make(cores=3, max_interactive_sessions=3)
    running(platform)
    for _ in range(3):
        platform.create("ada", NOTEBOOK, NOW)
    with pytest.raises(HTTPError, match=r"User ada has reached the maximum of 3 active sessions\."):
        platform.create("ada", NOTEBOOK, NOW)
    platform.create("ada", JOB, NOW)
    platform.create("bob", NOTEBOOK, NOW)


def test_a_finished_interactive_session_does_not_count() -> None:
    platform = make(max_interactive_sessions=1)
    platform.create("ada", NOTEBOOK, NOW)
    platform.advance(NOW + 4 * DAY)
    assert Status.RUNNING == platform.create("ada", NOTEBOOK, NOW + 4 * DAY).status


def test_desktop_apps_need_a_running_desktop_and_go_and_are_renewed_with_it() -> None:
    platform = make()
    desktop = running(platform, DESKTOP)
    app = platform.create_app("ada", desktop.id, APP, NOW)
    assert (desktop.id, 3) == (app.id, len(app.appid or ""))
    assert app is platform.find("ada", desktop.id, app.appid)

    platform.renew("ada", desktop.id, NOW + DAY)
    assert desktop.expires == app.expires
    platform.delete("ada", desktop.id, NOW + DAY)
    assert [] == list(platform.of_user("ada"))
    assert (0, 0) == platform.reserved


@pytest.mark.parametrize("spec", [None, NOTEBOOK])
def test_a_desktop_app_without_a_desktop_is_404(spec: Spec | None) -> None:
    platform = make()
    id_ = "nothere0" if spec is None else running(platform, spec).id
    with pytest.raises(HTTPError) as caught:
        platform.create_app("ada", id_, APP, NOW)
    assert 404 == caught.value.status


def test_users_do_not_see_each_other() -> None:
    platform = make()
    session = running(platform)
    assert platform.find("bob", session.id) is None
    assert [] == list(platform.of_user("bob"))
    assert [session] == list(platform.everyones())


def test_reports_about_sessions_that_are_gone_are_harmless() -> None:
    platform = make()
    platform.started("nothere0", NOW)
    platform.measured("nothere0", 1, 1.0)
    platform.ended("nothere0", NOW, 0)
    assert {} == platform.count()


def test_what_is_measured_shows_while_it_runs() -> None:
    platform = make()
    session = running(platform)
    platform.measured(session.key, 5, 0.5)
    assert (5, 0.5) == (session.ram_in_use, session.cores_in_use)
    platform.ended(session.key, NOW, 0)
    platform.measured(session.key, 5, 0.5)
    assert (None, None) == (session.ram_in_use, session.cores_in_use)


def test_a_closed_platform_starts_nothing() -> None:
    platform = make(cores=1)
    first = running(platform)
    second = platform.create("ada", JOB, NOW)
    platform.take_orders()
    platform.close()
    platform.ended(first.key, NOW, None)
    assert ([], Phase.QUEUED) == (platform.take_orders(), second.phase)


def test_changes_are_told_once_with_none_for_what_is_gone() -> None:
    platform = make()
    session = running(platform)
    assert [(session.key, session)] == platform.take_changes()
    assert [] == platform.take_changes()
    platform.delete("ada", session.id, NOW)
    assert [(session.key, None)] == platform.take_changes()


@pytest.mark.parametrize(("millicores", "ram"), [(999, GIB), (1000, GIB - 1)])
def test_a_platform_too_small_for_any_session_is_refused(millicores: int, ram: int) -> None:
    with pytest.raises(ValueError, match="at least 1 core and 1 GiB"):
        Settings(millicores=millicores, ram=ram)


def test_an_expiring_session_can_be_deleted_and_is_not_ended_twice() -> None:
    platform = make(cores=1)
    session = running(platform)
    platform.advance(NOW + 14 * DAY)
    platform.take_orders()
    platform.delete("ada", session.id, NOW + 14 * DAY)
    platform.advance(NOW + 20 * DAY)
    assert [Stop(session.key)] == platform.take_orders()
    platform.ended(session.key, NOW + 20 * DAY, None)
    assert (0, 0) == platform.reserved


def test_a_restored_platform_fails_what_ran_keeps_what_finished_and_queues_what_waited() -> None:
    before = make(cores=3)
    notebook, ran = running(before, NOTEBOOK), running(before)
    finished = running(before)
    before.ended(finished.key, NOW, 0)
    running(before)
    waits = before.create("ada", JOB, NOW + 1)

    after = make(cores=3)
    after.restore(before.everyones(), NOW + 2)
    assert (Status.FAILED, "NodeNotReady") == (ran.status, reasons(ran)[-1])
    assert Status.COMPLETED == finished.status
    assert Status.RUNNING == notebook.status
    assert [Start(waits)] == after.take_orders()
    assert (2000, 2 * GIB) == after.reserved


def test_a_restored_platform_lets_the_time_pass_that_it_was_away() -> None:
    before = make()
    session = running(before)
    before.ended(session.key, NOW, 0)
    after = make()
    after.restore(before.everyones(), NOW + HOUR)
    assert [] == list(after.everyones())


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_status(phase: Phase) -> None:
    assert Session("a", "ada", JOB, NOW, DAY, phase=phase).status in Status


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order, room is accounted for and nobody is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.platform = make(cores=3, ram=3)
        self.now = NOW
        self.alive: set[str] = set()

    def obey(self) -> None:
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
        self.obey()

    @precondition(lambda self: any(self.platform.everyones()))
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from(list(self.platform.everyones())))
        self.platform.delete("ada", session.id, self.now)
        self.obey()

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), code=st.sampled_from([0, 1, None]))
    def end(self, data: st.DataObject, code: int | None) -> None:
        key = data.draw(st.sampled_from(sorted(self.alive)))
        self.alive.remove(key)
        self.platform.ended(key, self.now, code)
        self.obey()

    @rule(seconds=st.sampled_from([1.0, HOUR, DAY, 15 * DAY]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.platform.advance(self.now)
        self.obey()

    @invariant()
    def room_is_what_the_living_hold(self) -> None:
        millicores, ram = self.platform.reserved
        assert 0 <= millicores <= 3000
        assert 0 <= ram <= 3 * GIB
        held = [s for s in self.platform.everyones() if s.phase.holding]
        assert sum(s.spec.millicores for s in held) <= millicores
        assert {s.key for s in held if s.spec.kind is Kind.HEADLESS} <= self.alive
        if not self.alive and not held:
            assert (0, 0) == (millicores, ram)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        if not self.alive and not any(s.phase.holding for s in self.platform.everyones()):
            assert not any(s.phase.waiting for s in self.platform.everyones())


TestLife = Life.TestCase
# How long a step takes says more about the machine than about the platform.
TestLife.settings = settings(deadline=None)
