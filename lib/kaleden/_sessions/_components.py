"""What an open client is made of."""

from __future__ import annotations

from typing import final

from attrs import frozen

from kaleden._engine._config import Limits
from kaleden._engine._engine import Engine
from kaleden._sessions._launch._launcher import Launcher
from kaleden._sessions._ledger._ledger import Ledger
from kaleden._sessions._monitor._lister import Lister
from kaleden._sessions._monitor._wait import Watcher
from kaleden._wire import Headers, Kind


@final
@frozen
class Rooms:
    """The parts of one open client, for the operations that need several of them.

    Attributes:
        engine: sends requests.
        lister: shares lists.
        launcher: launches.
        watcher: waits.
        limits: how many at once, and for how long.
        ledger: where launches are written down, if anywhere.
    """

    engine: Engine
    lister: Lister
    launcher: Launcher
    watcher: Watcher
    limits: Limits
    ledger: Ledger | None = None


def open_rooms(
    engine: Engine, limits: Limits, ledger: Ledger | None = None, headers: Headers = ()
) -> Rooms:
    """Make the parts of a client around its engine; *headers* go with each create."""
    lister = Lister(engine, limits)
    launcher = Launcher(engine, lister, limits, headers)
    watcher = Watcher(lister, Lister(engine, limits, Kind.DESKTOP_APP), engine, limits)
    return Rooms(engine, lister, launcher, watcher, limits, ledger)
