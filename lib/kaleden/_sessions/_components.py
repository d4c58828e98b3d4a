"""The components of an open client."""

from __future__ import annotations

from typing import final

from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._sessions._launch._launcher import Launcher
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._monitor._lister import SharedList
from kaleden._sessions._monitor._wait import Waiter
from kaleden._wire import Headers, SessionKind


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
    engine: Engine, limits: Limits, ledger: Ledger | None = None, headers: Headers = ()
) -> Components:
    """Build the components of a client around its engine; *headers* are sent with each create."""
    sessions = SharedList(engine, limits)
    launcher = Launcher(engine, sessions, limits, headers)
    waiter = Waiter(sessions, SharedList(engine, limits, SessionKind.DESKTOP_APP), engine, limits)
    return Components(engine, sessions, launcher, waiter, limits, ledger)
