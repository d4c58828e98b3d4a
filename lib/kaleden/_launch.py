"""Launching sessions, and losing none from the account."""

from __future__ import annotations

import logging

from kaleden import _operations
from kaleden._engine import Collected, Engine
from kaleden._outcomes import Outcomes, Success
from kaleden._policy import Limits
from kaleden._wire import SessionSpec

logger = logging.getLogger("kaleden")


async def launch(engine: Engine, limits: Limits, spec: SessionSpec) -> Outcomes[str]:
    """Launch every replica of *spec*; the values are the ids of the new sessions, by name."""
    launches = {launch.name: launch for launch in spec.launches()}
    into = Collected[str]()
    try:
        return await engine.collect(_operations.create(limits, launches), launches, into)
    except BaseException:
        _account_for(into)
        raise


def _account_for(into: Collected[str]) -> None:
    """Leave a trace of what an interrupted launch made, since its caller gets no outcomes."""
    made = [outcome.value for outcome in into.done if isinstance(outcome, Success)]
    if made or into.pending:
        logger.warning(
            "a launch was interrupted: sessions %s were created and are yours to destroy; "
            "sessions with the names %s may have been",
            made,
            into.pending,
        )
