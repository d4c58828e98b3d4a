"""What to launch: a checked spec, and the launches that it stands for."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from kaleden._errors import InvalidRequest
from kaleden._wire._enums import SessionKind
from kaleden._wire._validation import (
    check_cmd,
    check_cores,
    check_env,
    check_gpus,
    check_kind,
    check_launchable,
    check_name,
    check_ram,
    check_replicas,
    complete_image,
    format_replica_name,
    split_args,
)


def _mask_values(env: Mapping[str, str]) -> str:
    """Show what is set, and not to what: values may be secrets."""
    return repr(dict.fromkeys(env, "***"))


@frozen
class SessionSpec:
    """What to launch, checked when it is made.

    Without *cores* and *ram* the session is flexible: it gets what is free, up to a limit. With
    them it is fixed to these. *cmd*, *args* and *env* are for headless sessions.

    Args:
        name: lower-case letters, digits and inner hyphens; with several replicas each gets ``-N``
            after it, and at most 63 characters all together.
        image: ``project/name``, with or without ``host/`` before and ``:tag`` after it; kept in
            full, on ``images.canfar.net`` and ``:latest`` where it does not say.
        kind: what the session is for.
        cores: CPU cores, 1 or more.
        ram: memory in GiB, a whole number.
        gpus: number of GPUs, 1 or more.
        cmd: the program, one word; it is run without a shell.
        args: its arguments, as a list, or as a string with one space between them. There is no
            quoting: no argument can have a space. Kept as a tuple.
        env: environment variables; no repr shows their values.
        replicas: how many sessions to launch from this.

    Raises:
        InvalidRequest: the server would refuse it, or not do what it says.
    """

    name: str
    image: str = field(converter=complete_image)
    kind: SessionKind = field(default=SessionKind.HEADLESS, converter=check_kind)
    cores: float | None = None
    ram: int | None = None
    gpus: int | None = None
    cmd: str | None = None
    args: tuple[str, ...] = field(default=(), converter=split_args)
    env: dict[str, str] = field(
        factory=dict[str, str], converter=check_env, repr=_mask_values, hash=False
    )
    replicas: int = 1

    def __attrs_post_init__(self) -> None:
        check_name(self.name)
        check_launchable(self.kind)
        check_cores(self.cores)
        check_ram(self.ram)
        check_gpus(self.gpus)
        check_cmd(self.cmd)
        check_replicas(self.replicas, self.kind)
        check_name(format_replica_name(self.name, self.replicas, self.replicas))
        self._check_fit()

    def _check_fit(self) -> None:
        """Refuse what the server would silently ignore for this kind."""
        if self.kind is not SessionKind.HEADLESS:
            self._refuse("cmd", "args", "env", why="only headless sessions have it")
        if self.kind in {SessionKind.DESKTOP, SessionKind.FIREFLY}:
            self._refuse("cores", "ram", why=f"{self.kind} sessions come in one size")

    def _refuse(self, *names: str, why: str) -> None:
        for name in names:
            if getattr(self, name):
                raise InvalidRequest(
                    f"{name} would be ignored by the server for kind {self.kind.value!r}: "
                    f"leave it out, {why}"
                )

    def launches(self) -> tuple[Launch, ...]:
        """Return the sessions to create, one per replica, in order."""
        return tuple(
            Launch(format_replica_name(self.name, n, self.replicas), self, n, self.replicas)
            for n in range(1, self.replicas + 1)
        )


@frozen
class Launch:
    """One session to create.

    Attributes:
        name: its name, with the replica's suffix.
        spec: what it is launched from.
        replica: its number, from 1.
        replicas: how many there are.
    """

    name: str
    spec: SessionSpec
    replica: int = 1
    replicas: int = 1

    @property
    def env(self) -> dict[str, str]:
        """The spec's variables, with ``REPLICA_ID`` and ``REPLICA_COUNT`` set to this launch's."""
        return {
            **self.spec.env,
            "REPLICA_ID": str(self.replica),
            "REPLICA_COUNT": str(self.replicas),
        }
