"""Web pages of interactive sessions, opened in a browser."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import anyio.to_thread

from kaleden._engine import _operations
from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._engine._targets import Keys, drop_failed_launches
from kaleden._errors import FailureKind
from kaleden._results._batch import Failure, Outcome, Outcomes, Success
from kaleden._wire import SessionInfo, SessionStatus


async def connect(engine: Engine, limits: Limits, keys: Keys) -> Outcomes[str]:
    """Open the page of each Running session; the values are the URLs of the pages."""
    infos = await engine.collect(_operations.info(limits), drop_failed_launches(keys))
    outcomes = [await _open(outcome) for outcome in infos]
    return Outcomes("connect", outcomes, again=partial(connect, engine, limits))


async def _open(outcome: Outcome[SessionInfo]) -> Outcome[str]:
    if isinstance(outcome, Failure):
        return outcome

    url, status = outcome.value.connect_url, outcome.value.status
    if url is None:
        reason = f"a {outcome.value.kind} session has no page"
    elif not _is_page(url):
        reason = "the server gave no web address for it"
    elif status != SessionStatus.RUNNING:
        reason = f"the session is {status}, and its page is available only while it is Running"
    # Starting a browser may take seconds, and some launchers wait until it is closed.
    elif not await anyio.to_thread.run_sync(_open_tab, url, abandon_on_cancel=True):
        reason = "no browser could be started here: open the connect_url of info() yourself"
    else:
        return Success(outcome.key, url, outcome.attempts, outcome.elapsed)

    return Failure(outcome.key, FailureKind.NOT_OPENED, reason, elapsed=outcome.elapsed)


def _open_tab(url: str) -> bool:
    import webbrowser  # noqa: PLC0415 - rarely needed, and this is a thread

    return webbrowser.open_new_tab(url)


def _is_page(url: str) -> bool:
    """Return whether *url* is a web page; browsers also open other things, such as files."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False

    return parts.scheme in {"http", "https"} and bool(parts.hostname)
