"""Launching sessions, and losing none from the account."""

from __future__ import annotations

import logging
from typing import Any, Final

from kaleden import _operations
from kaleden._engine import Collected, Engine
from kaleden._errors import InvalidRequest
from kaleden._outcomes import Outcomes, Success
from kaleden._policy import Limits
from kaleden._wire import Kind, SessionSpec

logger = logging.getLogger("kaleden")

# The other arguments of `create` when none was given.
_NOTHING_ELSE: Final[dict[str, Any]] = {
    "cores": None,
    "ram": None,
    "kind": Kind.HEADLESS,
    "gpus": None,
    "cmd": None,
    "args": None,
    "env": {},
    "replicas": 1,
}


def read_spec(name: str | SessionSpec, image: str | None, /, **others: Any) -> SessionSpec:
    """Read the arguments of `create`, which are either a specification or its parts."""
    if isinstance(name, SessionSpec):
        if image is not None or others != _NOTHING_ELSE:
            msg = "a SessionSpec says all by itself: give nothing else with it, or attrs.evolve it"
            raise InvalidRequest(msg)

        return name

    if image is None:
        raise InvalidRequest("image: which one? `images` lists those that the platform offers")

    return SessionSpec(name, image, **others)


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
