"""The server's two vocabularies: kinds of session, and statuses.

Both are open. A value that no release of the server had yet becomes a member when it comes in, so
that a new word costs nobody a session.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class OpenEnum(StrEnum):
    """Strings with some known members: known ones in any case, and any other string as it is."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        return cls._find_known(value) or cls._make_unknown(value)

    @classmethod
    def _find_known(cls, value: str) -> Self | None:
        folded = value.casefold()
        return next((member for member in cls if member.value.casefold() == folded), None)

    @classmethod
    def _make_unknown(cls, value: str) -> Self:
        # Not stored in the class: values that servers send must not grow it.
        text = str.__str__(value)  # Of a subclass, whose own `__str__` may differ.
        member = str.__new__(cls, text)
        member._name_ = text
        member._value_ = text
        return member

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Self], tuple[str]]:
        """Pickle and copy by value.

        Python 3.11.2, for example, looks a member up by its name instead, as an attribute of the
        class, which an unknown member is not.
        """
        return type(self), (self.value,)

    @property
    def is_known(self) -> bool:
        """Whether this is one of the members that are written down here."""
        return self.value in type(self)._value2member_map_


class SessionKind(OpenEnum):
    """What a session is for. Unknown kinds are members too: ``SessionKind("vscode")``."""

    CARTA = "carta"
    CONTRIBUTED = "contributed"
    DESKTOP = "desktop"
    DESKTOP_APP = "desktop-app"
    FIREFLY = "firefly"
    HEADLESS = "headless"
    NOTEBOOK = "notebook"
    UNKNOWN = "unknown"
    """The server did not say."""


class SessionStatus(OpenEnum):
    """Where a session stands. Unknown statuses are members too: ``SessionStatus("Hibernated")``.

    Servers since 1.1 say Pending, Running, Terminating, Completed and Failed. Older ones say
    Succeeded where these say Completed (`matches` knows), and had Error and Unknown.
    """

    PENDING = "Pending"
    RUNNING = "Running"
    TERMINATING = "Terminating"
    COMPLETED = "Completed"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ERROR = "Error"
    UNKNOWN = "Unknown"
    """The server does not know, or did not say."""

    @property
    def is_terminal(self) -> bool:
        """Whether a session in this status has ended, for better or worse."""
        return self in TERMINAL_STATUSES

    def matches(self, other: str) -> bool:
        """Tell whether both mean the same, on whichever server and in whichever case."""
        return _normalize_status(self) == _normalize_status(other)


TERMINAL_STATUSES = frozenset(
    {SessionStatus.COMPLETED, SessionStatus.SUCCEEDED, SessionStatus.FAILED, SessionStatus.ERROR}
)
"""The statuses that a session does not leave."""


def _normalize_status(status: str) -> str:
    """Fold case and age: a status of an old server becomes today's."""
    folded = status.casefold()
    return "completed" if folded == "succeeded" else folded
