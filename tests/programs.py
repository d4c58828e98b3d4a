"""Programs that launch sessions, and strategies for the faults they meet."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

import kaleden
from kaleden.testing import Fault, FaultKind, FaultPlan, MemoryTransport
from support import IMAGE


def remove_cleanup_messages(errors: str) -> str:
    """Remove the messages of a slow clean-up, which depend on the machine."""
    return re.sub(r"(?m)^ending \d+ sessions?, up to .*\n", "", errors)


class Launched:
    """A program that launches sessions in a scope, and keeps the scope for inspection."""

    def __init__(self, replicas: int = 5, **options: Any) -> None:
        self.replicas = replicas
        self.options = options
        self.scope: kaleden.Scope | None = None

    async def __call__(self, platform: MemoryTransport) -> None:
        self.scope = None
        async with kaleden.AsyncSession(transport=platform, create_concurrency=3) as session:
            async with session.scope(**self.options) as self.scope:
                created = await self.scope.create("fits", IMAGE, replicas=self.replicas)
                await self.scope.wait(created.ids, "Running")

    def check(self, platform: MemoryTransport, error: BaseException | None) -> None:
        """Check that the scope's error lists all sessions that are left, and no others."""
        assert error is None or not isinstance(error, AssertionError)
        left = {session.id: session.spec.name for session in platform.sessions()}
        scope_error = self.scope.error if self.scope is not None else None
        survivors = set(scope_error.survivors) if scope_error is not None else set()
        launches = set(scope_error.launches) if scope_error is not None else set()
        unnamed = {key for key, name in left.items() if name not in launches}
        assert unnamed == survivors, (left, scope_error)
        assert {1} >= set(platform.created.values())


FAULT_KINDS = [
    FaultKind.RESET_BEFORE,
    FaultKind.RESET_AFTER,
    FaultKind.ERROR_BEFORE,
    FaultKind.ERROR_AFTER,
    FaultKind.STALL,
    FaultKind.STALL_AFTER,
    FaultKind.HALF_BODY,
    FaultKind.GARBAGE,
    FaultKind.HTML,
    FaultKind.REFUSED,
    FaultKind.BUSY,
]
faults = st.lists(
    st.builds(
        Fault,
        st.sampled_from(FAULT_KINDS),
        st.sampled_from(["create", "list", "destroy"]),
        probability=st.floats(0.05, 0.6),
    ),
    max_size=4,
)
slow_lists = st.lists(
    st.builds(
        Fault,
        st.just(FaultKind.DELAY),
        st.just("list"),
        probability=st.floats(0.1, 1),
        seconds=st.floats(0, 40),
    ),
    max_size=1,
)


async def launch_under_faults(
    faults: list[Fault], slow: list[Fault], seed: int, replicas: int
) -> None:
    """Launch in a scope; check that no replica is launched twice, and none is left unnamed."""
    names = [f"fits-{number}" for number in range(1, replicas + 1)]
    plan = FaultPlan([*faults, *slow], seed=seed)
    # A session that ends by itself needs no proof that it was removed.
    async with MemoryTransport(faults=plan, duration=10**6) as platform:
        error: kaleden.ScopeError | None = None
        async with kaleden.AsyncSession(transport=platform) as session:
            try:
                async with session.scope() as scope:
                    created = await scope.create("fits", IMAGE, replicas=replicas)
                    assert names == [outcome.key for outcome in created]
                    assert replicas == len(created.successes) + len(created.failures)
                    assert set(created.ids) == set(scope.ids)
                    assert {1} >= set(platform.created.values())
            except kaleden.ScopeError as caught:
                error = caught
        await platform.settled()
        assert {1} >= set(platform.created.values())
        left = {session.id: session.spec.name for session in platform.sessions()}
        named = set(error.survivors) if error else set()
        maybe = set(error.launches) if error else set()
        assert all(key in named or name in maybe for key, name in left.items())
