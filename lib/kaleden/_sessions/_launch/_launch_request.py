"""Launch requests: one for each replica of a specification, with the name that is sent."""

from __future__ import annotations

import secrets
from typing import Any, Final, final

from attrs import define, evolve

from kaleden._errors import InvalidRequest
from kaleden._wire import Launch, SessionKind, SessionSpec, check_name

# Characters that names allow. Eight characters out of 32 give 32**8, about 10**12, tokens.
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN_LENGTH: Final = 8

# The defaults of the other arguments of `create`.
_DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("cores", "ram", "gpus", "cmd", "args")),
    "kind": SessionKind.HEADLESS,
    "env": {},
    "replicas": 1,
}


def read_spec(name: str | SessionSpec, image: str | None, /, **others: Any) -> SessionSpec:
    """Return the specification that the arguments of `create` give, whole or in parts.

    Raises:
        InvalidRequest: the arguments are invalid.
    """
    if isinstance(name, SessionSpec):
        if image is not None or others != _DEFAULTS:
            msg = "a SessionSpec is complete: give no other argument with it, or use attrs.evolve"
            raise InvalidRequest(msg)

        return name

    if image is None:
        raise InvalidRequest("image is missing: `images` lists those that the platform offers")

    return SessionSpec(name, image, **others)


@final
@define(eq=False)
class LaunchRequest:
    """The launch of one session, and its progress.

    Attributes:
        key: its key in the outcomes: the name without the token.
        launch: the parameters to send; the name may end in a token.
        token: the token; None if the user's name is sent unchanged.
        sent: when the request was sent, on the clock of the event loop; None before.
        ended: when it ended, with or without a response, on the same clock; None before.
        answered: whether the server sent a response.
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


def build_requests_with_tokens(spec: SessionSpec) -> list[LaunchRequest]:
    """Return a request for each replica, with a unique token at the end of its name.

    Raises:
        InvalidRequest: the name is too long for a token.
    """
    return [_add_token(launch) for launch in spec.launches()]


def get_token(name: str) -> str:
    """Return the token at the end of a session name."""
    return name.rpartition("-")[2]


def _add_token(launch: Launch) -> LaunchRequest:
    token = "".join(secrets.choice(_ALPHABET) for _ in range(_TOKEN_LENGTH))
    return LaunchRequest(
        launch.name, evolve(launch, name=check_name(f"{launch.name}-{token}")), token
    )
