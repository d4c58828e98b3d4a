"""Live tables of a scope: their contents, their requests, and their errors, which are logged."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from support import IMAGE, PLAIN_BACKENDS

pytest.importorskip("anycorn")

import kaleden
from kaleden import AsyncSession, InvalidRequest, ScopeClosed, SessionList
from kaleden._results._tables import open_display
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport, run_virtual

QUICK: dict[str, Any] = {"start_delay": 0, "duration": 0.05, "latency": 0.001}


class MineError(Exception):
    pass


@pytest.fixture(params=PLAIN_BACKENDS)
def play(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a scenario in virtual time, on a platform in memory."""

    def play(scenario: Callable[..., Any], *faults: Fault, **options: Any) -> None:
        async def main() -> None:
            async with (
                MemoryTransport(faults=FaultPlan(faults), **options) as transport,
                AsyncSession(transport=transport) as session,
            ):
                await scenario(transport, session)

        run_virtual(main, backend=request.param)

    return play  # type: ignore[no-any-return,unused-ignore]


def test_each_change_is_shown_including_the_last(play: Callable[..., Any]) -> None:
    async def scenario(_: MemoryTransport, session: AsyncSession) -> None:
        shown: list[SessionList] = []
        async with session.scope() as scope, scope.watch(shown.append):
            created = await scope.create("fits", IMAGE, replicas=3)
            await scope.wait()
        summaries = [each.summary() for each in shown]
        assert "3 sessions: 3 Completed" == summaries[-1]
        assert "3 sessions: 3 Running" in summaries
        assert len(set(summaries)) == len(summaries)
        assert {*created.ids} == {info.id for info in shown[-1]}

    play(scenario)


def test_table_shares_the_lists_of_a_wait(play: Callable[..., Any]) -> None:
    lists: list[int] = []

    async def scenario(transport: MemoryTransport, session: AsyncSession) -> None:
        async with session.scope() as scope:
            await scope.create("fits", IMAGE, replicas=3)
            before = transport.requests["list"]
            if lists:
                async with scope.watch(lambda _: None), scope.watch(lambda _: None):
                    await scope.wait()
            else:
                await scope.wait()
            lists.append(transport.requests["list"] - before)

    for _ in range(2):
        play(scenario, duration=300.0)
    alone, beside = lists
    assert beside <= alone + 2


def test_table_shows_gone_sessions_and_tolerates_failed_lists(
    play: Callable[..., Any],
) -> None:
    async def scenario(_: MemoryTransport, session: AsyncSession) -> None:
        shown: list[str] = []
        async with session.scope() as scope:
            created = await scope.create("fits", IMAGE, replicas=2)
            async with scope.watch(lambda sessions: shown.append(sessions.summary())):
                await anyio.sleep(60)
                await session.destroy(created.ids[0])
                await anyio.sleep(60)
        assert "2 sessions: 1 gone, 1 Running" in {shown[-1], *shown}

    faults = [Fault(FaultKind.BUSY, "list", nth=nth) for nth in (1, 2, 3)]
    play(scenario, *faults, duration=1e6)


def test_exception_of_show_is_only_logged(
    play: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: SessionList) -> None:
        raise MineError

    async def scenario(_: MemoryTransport, session: AsyncSession) -> None:
        with caplog.at_level(logging.WARNING, "kaleden"):
            async with session.scope() as scope, scope.watch(fail):
                await scope.create("fits", IMAGE, replicas=3)
                assert (await scope.wait()).ok
        logged = [each for each in caplog.messages if "can no longer be shown" in each]
        assert 1 == len(logged)

    play(scenario)


def test_exception_of_the_block_is_raised_unchanged(play: Callable[..., Any]) -> None:
    async def scenario(transport: MemoryTransport, session: AsyncSession) -> None:
        shown: list[SessionList] = []
        with pytest.raises(MineError):
            async with session.scope() as scope, scope.watch(shown.append):
                await scope.create("fits", IMAGE)
                raise MineError
        with anyio.move_on_after(5) as cancelled:
            async with session.scope() as scope, scope.watch(shown.append):
                await scope.create("fits", IMAGE)
                await anyio.sleep_forever()
        assert cancelled.cancelled_caught
        assert "1 session: 1 Running" == shown[-1].summary()
        assert [] == transport.sessions()

    play(scenario)


def test_invalid_show_and_closed_scope_are_refused(play: Callable[..., Any]) -> None:
    async def scenario(_: MemoryTransport, session: AsyncSession) -> None:
        scope = session.scope()
        with pytest.raises(ScopeClosed):
            scope.watch()
        async with scope:
            with pytest.raises(InvalidRequest, match="show is a function"):
                scope.watch(3)  # type: ignore[arg-type]
            with pytest.raises(InvalidRequest, match="would not be awaited"):
                scope.watch(anyio.sleep)  # type: ignore[arg-type]
            with pytest.raises(kaleden.InvalidRequest, match="would not be awaited"):
                scope.watch(anyio.sleep)  # type: ignore[arg-type]
        with pytest.raises(ScopeClosed):
            scope.watch()

    play(scenario)


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_blocking_session_shows_changes(backend: Any) -> None:
    shown: list[SessionList] = []
    with kaleden.Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        with session.scope() as scope, scope.watch(shown.append):
            scope.create("fits", IMAGE, replicas=3)
            scope.wait()
        assert "3 sessions: 3 Completed" == shown[-1].summary()
        with pytest.raises(MineError) as caught:
            with session.scope() as scope, scope.watch(shown.append):
                raise MineError
        assert caught.value.__cause__ is None
        with pytest.raises(ScopeClosed):
            scope.watch()
        assert [] == session.fetch()


@pytest.mark.parametrize("backend", PLAIN_BACKENDS)
def test_system_exit_of_show_ends_blocking_code(backend: Any) -> None:
    def leave(_: SessionList) -> None:
        sys.exit(3)

    with kaleden.Session(transport=MemoryTransport(**QUICK), backend=backend) as session:
        with pytest.raises(SystemExit):
            with session.scope() as scope, scope.watch(leave):
                scope.create("fits", IMAGE)
                scope.wait()
        assert [] == session.fetch()


# --- outputs -------------------------------------------------------------------------------------

TABLES = [
    SessionList(),
    SessionList([kaleden.SessionInfo(id="a", status=kaleden.SessionStatus.PENDING)]),
    SessionList([kaleden.SessionInfo(id="a", status=kaleden.SessionStatus.RUNNING)] * 50),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_has_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with open_display() as draw:
        for table in TABLES:
            draw(table)
    assert "\x1b[36mRunning" in screen.getvalue()
    assert "… and 30 more" in screen.getvalue()


def test_other_outputs_have_a_line_for_each_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    for is_missing in (False, True):
        if is_missing:
            monkeypatch.setitem(sys.modules, "rich.live", None)
        with open_display() as draw:
            for table in (*TABLES, TABLES[-1]):
                draw(table)
        out, lines = capsys.readouterr()
        assert "" == out
        expected = ["0 sessions", "1 session: 1 Pending", "50 sessions: 50 Running"]
        assert expected == lines.splitlines()


def test_notebook_has_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def display(drawn: Any, *, display_id: bool) -> Any:
        assert display_id
        shown.append(drawn)
        return SimpleNamespace(update=shown.append)

    shell = SimpleNamespace(kernel=object())
    fake = SimpleNamespace(get_ipython=lambda: shell, display=SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    with open_display() as draw:
        for table in TABLES:
            draw(table)
    assert ["0 sessions", "1 session: 1 Pending", "50 sessions: 50 Running"] == [*map(repr, shown)]
    assert "… and 30 more" in shown[-1]._repr_html_()
    shell.kernel = None
    with open_display() as draw:
        draw(TABLES[0])
    assert 3 == len(shown)


def test_display_that_cannot_be_opened_is_only_logged(
    play: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> Any:
        raise MineError

    monkeypatch.setattr("kaleden._sessions._monitor._live_table.open_display", refuse)

    async def scenario(_: MemoryTransport, session: AsyncSession) -> None:
        with caplog.at_level(logging.WARNING, "kaleden"):
            async with session.scope() as scope, scope.watch():
                assert (await scope.wait(await scope.create("fits", IMAGE))).ok
        assert any("cannot be shown" in each for each in caplog.messages)

    play(scenario)
