"""Launch requests: one for each replica of a specification, with the name that is sent."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final, final

from attrs import define, evolve

from kaleden._errors import InvalidRequest
from kaleden._wire import Launch, SessionKind, SessionSpec, check_name

# Characters that names allow. Eight characters out of 32 give 32**8, about 10**12, tokens.
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_TOKEN_LENGTH: Final = 8


def read_spec(
    name: str | SessionSpec,
    image: str | None,
    cores: float | None = None,
    ram: int | None = None,
    kind: str = SessionKind.HEADLESS,
    gpus: int | None = None,
    cmd: str | None = None,
    args: str | Sequence[str] | None = None,
    env: Mapping[str, str] | None = None,
    replicas: int = 1,
) -> SessionSpec:
    """Return the specification that the arguments of `create` give, whole or in parts.

    Raises:
        InvalidRequest: the arguments are invalid.
    """
    others = (cores, ram, kind, gpus, cmd, args, env or {}, replicas)
    if isinstance(name, SessionSpec):
        if image is not None or others != (None, None, SessionKind.HEADLESS, *[None] * 3, {}, 1):
            msg = "a SessionSpec is complete: give no other argument with it, or use attrs.evolve"
            raise InvalidRequest(msg)

        return name

    if image is None:
        raise InvalidRequest("image is missing: `images` lists those that the platform offers")

    return SessionSpec(name, image, kind, cores, ram, gpus, cmd, args, env or {}, replicas)


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
