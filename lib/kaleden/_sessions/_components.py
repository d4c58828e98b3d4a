"""The components of an open client."""

from __future__ import annotations

import math
from typing import Final, final

from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._sessions._launch._launcher import Launcher
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._outage import Patience
from kaleden._sessions._monitor._wait import Waiter
from kaleden._wire import Headers, SessionKind

_FIXED_LOGIN_TIMEOUT: Final = 60.0
"""Seconds for which the refusal of a login that cannot change is tolerated."""


@final
@frozen
class Components:
    """The components of one open client, for operations that need several of them."""

    engine: Engine
    sessions: SharedList
    launcher: Launcher
    waiter: Waiter
    limits: Limits
    ledger: Ledger | None = None


def build_components(
    engine: Engine,
    limits: Limits,
    ledger: Ledger | None = None,
    headers: Headers = (),
    *,
    login_can_change: bool = True,
) -> Components:
    """Build the components of a client around its engine.

    Args:
        engine: sends the requests.
        limits: the limits of the client.
        ledger: the record of launches, if there is one.
        headers: sent with each create.
        login_can_change: whether a login that the server refuses may be accepted later.
    """
    outage = math.inf if limits.outage_timeout is None else limits.outage_timeout
    login = outage if login_can_change else min(outage, _FIXED_LOGIN_TIMEOUT)
    patience = Patience(outage, login, lambda: engine.has_succeeded)
    sessions = SharedList(engine, limits)
    apps = SharedList(engine, limits, SessionKind.DESKTOP_APP)
    launcher = Launcher(engine, sessions, limits, headers)
    waiter = Waiter(sessions, apps, engine, limits, patience)
    return Components(engine, sessions, launcher, waiter, limits, ledger)
