"""Launch specifications: `SessionSpec`, and one `Launch` for each of its replicas."""

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
    """Format the variables without their values, which may be secrets."""
    return repr(dict.fromkeys(env, "***"))


@frozen
class SessionSpec:
    """The specification of one or more sessions to launch, validated on construction.

    Without *cores* and *ram* the session has flexible resources: it uses free resources up to a
    limit. With them its resources are fixed. *cmd*, *args* and *env* are for headless sessions.

    Args:
        name: lower-case letters, digits and inner hyphens, at most 63 characters. With several
            replicas, ``-N`` is appended for each, which counts towards the limit.
        image: ``project/name``, optionally with ``host/`` before and ``:tag`` after it. Stored in
            full, with ``images.canfar.net`` and ``:latest`` for missing parts.
        kind: the kind of session.
        cores: CPU cores, 1 or more.
        ram: memory in GiB, a whole number.
        gpus: number of GPUs, 1 or more.
        cmd: the program, without spaces; it is run without a shell.
        args: its arguments, as a list, or as a string with one space between them. There is no
            quoting, so an argument cannot contain a space. Stored as a tuple.
        env: environment variables; the repr leaves their values out.
        replicas: the number of sessions to launch.

    Raises:
        InvalidRequest: the server would reject the launch, or would not run it as specified.
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
        """Refuse arguments that the server would silently ignore for this kind."""
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
        """Return the launches, one per replica, in order."""
        return tuple(
            Launch(format_replica_name(self.name, n, self.replicas), self, n, self.replicas)
            for n in range(1, self.replicas + 1)
        )


@frozen
class Launch:
    """One session to create.

    Attributes:
        name: the session name, with the replica's suffix.
        spec: the specification that it belongs to.
        replica: the number of this replica, from 1.
        replicas: the number of replicas.
    """

    name: str
    spec: SessionSpec
    replica: int = 1
    replicas: int = 1

    @property
    def env(self) -> dict[str, str]:
        """The spec's environment variables, and ``REPLICA_ID`` and ``REPLICA_COUNT``."""
        return {
            **self.spec.env,
            "REPLICA_ID": str(self.replica),
            "REPLICA_COUNT": str(self.replicas),
        }
