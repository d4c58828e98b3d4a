"""Following a log neither loses nor repeats a line, and reports that the log was replaced."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden import LogLine, LogReset
from kaleden._wire import Request, Response
from kaleden.local import Session
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from promises.loops import VirtualLoop
from support import IMAGE, data, session_object, session_on, text

pieces = st.lists(st.text(st.sampled_from("ab\n\n é日"), max_size=12), max_size=20)
fault_lists = st.lists(
    st.builds(
        Fault,
        st.sampled_from(
            [FaultKind.BUSY, FaultKind.RESET_BEFORE, FaultKind.RESET_AFTER, FaultKind.HALF_BODY]
        ),
        st.just("logs"),
        nth=st.sets(st.integers(1, 40), max_size=12),
    ),
    max_size=1,
)


def split_lines(log: str) -> list[str]:
    return log.removesuffix("\n").split("\n") if log else []


def test_each_line_is_received_once_and_in_order(
    virtual: VirtualLoop, count_trials: Callable[[int], None]
) -> None:
    examples = 0

    @settings(max_examples=40, deadline=None)
    @given(pieces=pieces, every=st.floats(0.1, 9), faults=fault_lists)
    def search(pieces: list[str], every: float, faults: list[Fault]) -> None:
        nonlocal examples
        examples += 1

        def log(_: Session, seconds: float) -> str:
            return "".join(pieces[: int(seconds / every)])

        async def follow() -> list[kaleden.LogItem]:
            duration = every * (len(pieces) + 1)
            async with (
                MemoryTransport(log=log, duration=duration, faults=FaultPlan(faults)) as world,
                kaleden.AsyncSession(transport=world) as session,
            ):
                created = await session.create("fits", IMAGE)
                async with session.follow(created) as items:
                    return [item async for item in items]
            raise AssertionError

        received = [
            item.text if isinstance(item, LogLine) else item for item in virtual.run(follow)
        ]
        assert split_lines("".join(pieces)) == received

    search()
    count_trials(examples)


@pytest.mark.parametrize("later", ["x\ny\n", "one\nTWO\n", "z"])
def test_replaced_log_is_reported(virtual: VirtualLoop, later: str) -> None:
    reads = 0

    async def respond(request: Request) -> Response:
        nonlocal reads
        if request.target == "session":
            return data([session_object("a", status="Running" if reads < 6 else "Completed")])
        reads += 1
        return text("one\ntwo\n" if reads < 3 else later)

    async def follow() -> list[kaleden.LogItem]:
        session, _ = session_on(respond)
        async with session, session.follow("a") as items:
            return [item async for item in items]
        raise AssertionError

    before = [LogLine("a", line) for line in ("one", "two")]
    after = [LogLine("a", line) for line in split_lines(later)]
    assert [*before, LogReset("a"), *after] == virtual.run(follow)
