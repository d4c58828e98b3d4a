"""What creates were told, and whether it was meant for them.

HTTP/1.1 has nothing by which a reply tells what it is the reply to. A server or a proxy that sends
one twice makes the second look like the answer to the connection's next request, and the true one
is lost. As no two sessions have one id, it shows.
"""

from __future__ import annotations

from typing import Final, final

from kaleden._errors import FailureKind
from kaleden._results._batch import Outcome, Success
from kaleden._results._outcome import belied

_MOST: Final = 1000
"""How many sessions are remembered: what a proxy says twice, it says soon."""


@final
class Answers:
    """What the creates of one client were told lately.

    Args:
        most: how many sessions are remembered.

    Attributes:
        names: the names of the sessions that were told, by their ids.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self.names: dict[str, str] = {}

    def check(self, outcome: Outcome[str], name: str) -> Outcome[str]:
        """Turn what can only be the answer to another create into a failure."""
        if not isinstance(outcome, Success):
            return outcome

        if outcome.value in self.names:
            message = f"session {outcome.value}, which was the answer, is another create's"
            return belied(outcome, FailureKind.PROTOCOL, message)

        self.add(outcome.value, name)
        return outcome

    def add(self, session: str, name: str) -> None:
        """Take note of the session that a create has made."""
        self.names[session] = name
        if len(self.names) > self._most:
            del self.names[next(iter(self.names))]
