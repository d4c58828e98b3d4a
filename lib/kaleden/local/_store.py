"""A platform's memory on disk: its sessions in SQLite, so that a restarted one knows them."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import cattrs
from attrs import define, field

from kaleden.local._platform._model import Session

# The lock is taken by the first write and kept: two platforms on one file would take each other's
# processes for leftovers, and kill them.
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, session TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS platform (name TEXT PRIMARY KEY, value TEXT NOT NULL);
COMMIT;
"""


def freeze(session: Session) -> str:
    """Write a session as JSON."""
    return json.dumps(cattrs.unstructure(session))


def thaw(text: str) -> Session:
    """Read a session back; what it used of memory and cores is no longer true."""
    session = cattrs.structure(json.loads(text), Session)
    session.ram_in_use = session.cores_in_use = None
    return session


def _explain(path: Path, error: sqlite3.DatabaseError) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"{path} cannot be used ({error}): does another platform use it?"
    return f"{path} is not a state file ({error}): name another"


@define
class Store:
    """The sessions of a platform, in a SQLite file. Its methods block.

    Args:
        path: the file; it is made if need be, readable by its owner only.

    Raises:
        RuntimeError: another platform uses the file, or it is something else.
    """

    path: Path
    _db: sqlite3.Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.path.touch(mode=0o600)
        # Used by one thread at a time, and not always by the same.
        self._db = sqlite3.connect(self.path, timeout=0.5, check_same_thread=False)
        try:
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise RuntimeError(_explain(self.path, error)) from error

    def value(self, name: str) -> str:
        """Return a random text that stays the same for as long as the file lives."""
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO platform VALUES (?, ?)", (name, secrets.token_urlsafe(24))
            )
        row = self._db.execute("SELECT value FROM platform WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def load(self) -> list[Session]:
        """Read all sessions."""
        rows = self._db.execute("SELECT session FROM sessions").fetchall()
        return [thaw(text) for (text,) in rows]

    def save(self, changes: Iterable[tuple[str, str | None]]) -> None:
        """Write what changed: keys, and frozen sessions, or None where they are gone."""
        with self._db:
            for key, text in changes:
                if text is None:
                    self._db.execute("DELETE FROM sessions WHERE key = ?", (key,))
                else:
                    self._db.execute("REPLACE INTO sessions VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
