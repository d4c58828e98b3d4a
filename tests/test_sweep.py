"""A scope struck everywhere: at each pass of the event loop and at each point of each request."""

from __future__ import annotations

from typing import Any

import pytest

from support import PLAIN_BACKENDS

pytest.importorskip("anycorn")

from hypothesis import given, settings
from hypothesis import strategies as st

import kaleden
from kaleden.testing import (
    Fault,
    FaultPlan,
    MemoryTransport,
    Trouble,
    cancel_at_every_checkpoint,
    run_virtual,
)

IMAGE = "skaha/astroml:latest"

pytestmark = pytest.mark.parametrize("backend", PLAIN_BACKENDS)


class Launched:
    """A program that launches eight sessions in a scope, and what its scope came to."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.scope: kaleden.Scope | None = None

    async def __call__(self, world: MemoryTransport) -> None:
        self.scope = None
        async with kaleden.AsyncSession(transport=world, create_concurrency=3) as session:
            async with session.scope(**self.options) as self.scope:
                created = await self.scope.create("fits", IMAGE, replicas=8)
                await self.scope.wait(created.ids, "Running")

    def check(self, world: MemoryTransport, error: BaseException | None) -> None:
        """Nothing is left, or just what the scope names."""
        assert error is None or not isinstance(error, AssertionError)
        left = {session.id: session.spec.name for session in world.sessions()}
        told = self.scope.error if self.scope is not None else None
        survivors = set(told.survivors) if told is not None else set()
        launches = set(told.launches) if told is not None else set()
        unnamed = {key for key, name in left.items() if name not in launches}
        assert unnamed == survivors, (left, told)
        assert {1} >= set(world.created.values())


PLATFORMS: dict[str, dict[str, Any]] = {
    "calm": {},
    "slow to finish what was abandoned": {"finish_delay": 3.0},
    "finishes late": {"finish_delay": 300.0},
    "drops what was abandoned": {"abandoned": "dies"},
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("platform", PLATFORMS, ids=str)
def test_no_session_survives_its_scope(backend: Any, platform: str) -> None:
    program = Launched(grace=30)
    report = cancel_at_every_checkpoint(
        program,
        check=program.check,
        world=lambda: MemoryTransport(**PLATFORMS[platform]),
        backend=backend,
        step=1 if platform == "calm" else 5,
    )
    assert report.trials > 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "trouble",
    [Trouble.RESET_AFTER, Trouble.ERROR_AFTER, Trouble.STALL_AFTER, Trouble.HALF_BODY],
    ids=str,
)
def test_no_session_survives_its_scope_when_answers_are_lost(
    backend: Any, trouble: Trouble
) -> None:
    program = Launched(grace=30)
    report = cancel_at_every_checkpoint(
        program,
        check=program.check,
        world=lambda: MemoryTransport(faults=FaultPlan([Fault(trouble, "create", nth={2, 5})])),
        backend=backend,
        causes=("scope", "native3", "error"),
        step=7,
    )
    assert report.trials > 100


TROUBLES = [
    Trouble.RESET_BEFORE,
    Trouble.RESET_AFTER,
    Trouble.ERROR_BEFORE,
    Trouble.ERROR_AFTER,
    Trouble.STALL,
    Trouble.STALL_AFTER,
    Trouble.HALF_BODY,
    Trouble.GARBAGE,
    Trouble.HTML,
    Trouble.REFUSED,
    Trouble.BUSY,
]
faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(TROUBLES),
        st.sampled_from(["create", "list", "destroy"]),
        probability=st.floats(0.05, 0.6),
    ),
    max_size=4,
)
slow_lists = st.lists(
    st.builds(
        Fault,
        st.just(Trouble.DELAY),
        st.just("list"),
        probability=st.floats(0.1, 1),
        seconds=st.floats(0, 40),
    ),
    max_size=1,
)


@settings(max_examples=150, deadline=None)
@given(faults=faults, slow=slow_lists, seed=st.integers(0, 2**16))
def test_one_specification_is_never_two_sessions(
    backend: Any, faults: list[Fault], slow: list[Fault], seed: int
) -> None:
    async def main() -> None:
        async with MemoryTransport(faults=FaultPlan([*faults, *slow], seed=seed)) as world:
            error: kaleden.ScopeError | None = None
            async with kaleden.AsyncSession(transport=world) as session:
                try:
                    async with session.scope() as scope:
                        created = await scope.create("fits", IMAGE, replicas=10)
                        assert [f"fits-{n}" for n in range(1, 11)] == [o.key for o in created]
                        assert len(created.successes) + len(created.failures) == 10
                        assert set(created.ids) == set(scope.ids)
                        assert {1} >= set(world.created.values())
                except kaleden.ScopeError as caught:
                    error = caught
            await world.settled()
            assert {1} >= set(world.created.values())
            left = {session.id: session.spec.name for session in world.sessions()}
            named = set(error.survivors) if error else set()
            maybe = set(error.launches) if error else set()
            assert all(key in named or name in maybe for key, name in left.items())

    run_virtual(main, backend=backend)
