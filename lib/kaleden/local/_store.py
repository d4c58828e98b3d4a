"""The state file of the embedded platform: its sessions in SQLite, for a restart."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable
from pathlib import Path

import cattrs
from attrs import define, field

from kaleden.local._platform._model import Session

# The first write acquires the lock, and it is held until the file is closed. Otherwise two
# platforms with the same file would kill each other's processes as left over.
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
BEGIN EXCLUSIVE;
CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, session TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS platform (name TEXT PRIMARY KEY, value TEXT NOT NULL);
COMMIT;
"""


def serialize_session(session: Session) -> str:
    """Serialize a session as JSON."""
    return json.dumps(cattrs.unstructure(session))


def deserialize_session(text: str) -> Session:
    """Deserialize a session, without its memory and core usage, which is out of date."""
    session = cattrs.structure(json.loads(text), Session)
    session.ram_in_use = session.cores_in_use = None
    return session


@define
class Store:
    """The sessions of a platform, in a SQLite file. Its methods block.

    Args:
        path: the file. It is created if it does not exist, readable only by its owner.

    Raises:
        RuntimeError: another platform uses the file, or it is not a state file.
    """

    path: Path
    _db: sqlite3.Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.path.touch(mode=0o600)
        # Worker threads use the connection: one at a time, but not always the same one.
        self._db = sqlite3.connect(self.path, timeout=0.5, check_same_thread=False)
        try:
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            self._db.close()
            message = (
                f"{self.path} cannot be used ({error}): does another platform use it?"
                if isinstance(error, sqlite3.OperationalError)
                else f"{self.path} is not a state file ({error}): name another"
            )
            raise RuntimeError(message) from error

    def get_value(self, name: str) -> str:
        """Return the random text with this name. It is created once for each file."""
        with self._db:
            self._db.execute(
                "INSERT OR IGNORE INTO platform VALUES (?, ?)", (name, secrets.token_urlsafe(24))
            )
        row = self._db.execute("SELECT value FROM platform WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def load(self) -> list[Session]:
        """Return all sessions."""
        rows = self._db.execute("SELECT session FROM sessions").fetchall()
        return [deserialize_session(text) for (text,) in rows]

    def save(self, changes: Iterable[tuple[str, str | None]]) -> None:
        """Write changes: pairs of a key and a serialized session, or None to delete it."""
        with self._db:
            for key, text in changes:
                if text is None:
                    self._db.execute("DELETE FROM sessions WHERE key = ?", (key,))
                else:
                    self._db.execute("REPLACE INTO sessions VALUES (?, ?)", (key, text))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
