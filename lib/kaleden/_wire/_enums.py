"""Open enumerations of session kinds and session statuses.

A value that is not defined here becomes a member when it is parsed. A session with a kind or status
that a newer server introduces can therefore still be read.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class OpenEnum(StrEnum):
    """A string enumeration that accepts unknown values.

    Known members are found case-insensitively. Any other string becomes a member with that value.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        folded = value.casefold()
        for known in cls:
            if known.value.casefold() == folded:
                return known
        # Not stored in the class, so that values from servers cannot grow it.
        text = str.__str__(value)  # A subclass of str may override `__str__`.
        member = str.__new__(cls, text)
        member._name_ = text
        member._value_ = text
        return member

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Pickle and copy by value.

        Some versions of Python, for example 3.11.2, look a member up by name as an attribute of the
        class. That fails for unknown members.
        """
        return type(self), (self.value,)

    @property
    def is_known(self) -> bool:
        """Whether this member is defined in the class."""
        return self.value in type(self)._value2member_map_


class SessionKind(OpenEnum):
    """The kind of a session. Unknown kinds are members too: ``SessionKind("vscode")``."""

    CARTA = "carta"
    CONTRIBUTED = "contributed"
    DESKTOP = "desktop"
    DESKTOP_APP = "desktop-app"
    FIREFLY = "firefly"
    HEADLESS = "headless"
    NOTEBOOK = "notebook"
    UNKNOWN = "unknown"
    """The server did not send a kind."""


class SessionStatus(OpenEnum):
    """The status of a session. Unknown statuses are members too: ``SessionStatus("Hibernated")``.

    Servers since 1.1 use Pending, Running, Terminating, Completed and Failed. Older servers use
    Succeeded instead of Completed (`matches` treats them as equal), and also Error and Unknown.
    """

    PENDING = "Pending"
    RUNNING = "Running"
    TERMINATING = "Terminating"
    COMPLETED = "Completed"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ERROR = "Error"
    UNKNOWN = "Unknown"
    """The server does not know the status, or did not send one."""

    @property
    def is_terminal(self) -> bool:
        """Whether a session in this status has ended, successfully or not."""
        return self in TERMINAL_STATUSES

    def matches(self, other: str) -> bool:
        """Return whether both statuses have the same meaning.

        The comparison ignores case and equates the names that old and new servers use.
        """
        return _normalize_status(self) == _normalize_status(other)


TERMINAL_STATUSES = frozenset(
    {SessionStatus.COMPLETED, SessionStatus.SUCCEEDED, SessionStatus.FAILED, SessionStatus.ERROR}
)
"""The statuses of sessions that have ended; a session never leaves them."""


def _normalize_status(status: str) -> str:
    """Fold case, and map a status of an old server to the current name."""
    folded = status.casefold()
    return "completed" if folded == "succeeded" else folded
