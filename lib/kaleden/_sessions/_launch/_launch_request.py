"""What is to be launched, and under which names."""

from __future__ import annotations

import secrets
from typing import Any, Final, final

from attrs import define, evolve

from kaleden._errors import InvalidRequest
from kaleden._wire import Launch, SessionKind, SessionSpec, check_name

# In an alphabet that names allow; eight of 32 are a trillion.
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN_LENGTH: Final = 8

# The other arguments of `create` when none was given.
_DEFAULTS: Final[dict[str, Any]] = {
    "cores": None,
    "ram": None,
    "kind": SessionKind.HEADLESS,
    "gpus": None,
    "cmd": None,
    "args": None,
    "env": {},
    "replicas": 1,
}


def read_spec(name: str | SessionSpec, image: str | None, /, **others: Any) -> SessionSpec:
    """Read the arguments of `create`, which are either a specification or its parts."""
    if isinstance(name, SessionSpec):
        if image is not None or others != _DEFAULTS:
            msg = "a SessionSpec says all by itself: give nothing else with it, or attrs.evolve it"
            raise InvalidRequest(msg)

        return name

    if image is None:
        raise InvalidRequest("image: which one? `images` lists those that the platform offers")

    return SessionSpec(name, image, **others)


@final
@define(eq=False)
class LaunchRequest:
    """One launch on its way.

    Attributes:
        key: its name in the outcomes.
        launch: what is sent; its name may have a token at its end.
        token: the token, or None where the user's name is sent as it is.
        sent: when the request left, on the clock of the event loop; None before.
        ended: when it was over, with an answer or without; None before.
        answered: whether the server said anything.
    """

    key: str
    launch: Launch
    token: str | None = None
    sent: float | None = None
    ended: float | None = None
    answered: bool = False

    @property
    def name(self) -> str:
        """The name that the session has on the server."""
        return self.launch.name


def plain_requests(spec: SessionSpec) -> list[LaunchRequest]:
    """Make a ticket for each replica, under the user's own names."""
    return [LaunchRequest(launch.name, launch) for launch in spec.launches()]


def requests_with_tokens(spec: SessionSpec) -> list[LaunchRequest]:
    """Make a ticket for each replica, with a token in its name that no other launch has.

    Raises:
        InvalidRequest: the name is too long for a token.
    """
    return [_with_token(launch) for launch in spec.launches()]


def token_of(name: str) -> str:
    """Tell the token at the end of a session's name."""
    return name.rpartition("-")[2]


def _with_token(launch: Launch) -> LaunchRequest:
    token = "".join(secrets.choice(_ALPHABET) for _ in range(_TOKEN_LENGTH))
    return LaunchRequest(
        launch.name, evolve(launch, name=check_name(f"{launch.name}-{token}")), token
    )
