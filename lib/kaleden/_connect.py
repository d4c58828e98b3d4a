"""Opening the pages of interactive sessions."""

from __future__ import annotations

import webbrowser
from functools import partial

import anyio.to_thread
from attrs import evolve

from kaleden import _operations
from kaleden._engine import Engine, Keys
from kaleden._errors import FailureKind
from kaleden._outcomes import Failure, Outcome, Outcomes, Success
from kaleden._policy import Limits
from kaleden._wire import SessionInfo, Status


async def connect(engine: Engine, limits: Limits, keys: Keys) -> Outcomes[str]:
    """Open the page of each session that is Running; the values are the pages' URLs."""
    infos = await engine.collect(_operations.info(limits), keys)
    outcomes = [await _open(outcome) for outcome in infos]
    return Outcomes("connect", outcomes, again=partial(connect, engine, limits))


async def _open(outcome: Outcome[SessionInfo]) -> Outcome[str]:
    if isinstance(outcome, Failure):
        return outcome

    reason = await _try_to_open(outcome.value)
    if reason is not None:
        return Failure(outcome.key, FailureKind.NOT_OPENED, reason, elapsed=outcome.elapsed)

    return evolve(outcome, value=outcome.value.connect_url)


async def _try_to_open(session: SessionInfo) -> str | None:
    """Open the session's page, or say why not."""
    if session.connect_url is None:
        return f"a {session.kind} session has no page"

    if session.status != Status.RUNNING:
        return f"the session is {session.status}, and its page answers only while it is Running"

    # Starting a browser may take seconds, and some wait for it to be closed.
    opened = await anyio.to_thread.run_sync(
        webbrowser.open_new_tab, session.connect_url, abandon_on_cancel=True
    )
    return None if opened else "no browser could be started here: open the connect_url of info() yourself"
