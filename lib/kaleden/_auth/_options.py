"""The arguments of a client, as one object."""

from __future__ import annotations

import os
import ssl
from typing import final

from attrs import field, frozen

from kaleden._auth._tokens import TokenFunction
from kaleden._engine._config import RETRY, Limits, RetryPolicy
from kaleden._errors import ConfigurationError
from kaleden._http import HttpAuth, HttpClient, Transport


def _check_retry(_: object, __: object, value: object) -> None:
    if value is not None and not isinstance(value, RetryPolicy):
        raise ConfigurationError(
            f"retry= takes a RetryPolicy, such as RetryPolicy(attempts=3), or None, not {value!r}"
        )


@final
@frozen(kw_only=True)
class ClientOptions:
    """The arguments of `AsyncSession`, which documents them; *limits* holds the numbers.

    Raises:
        ConfigurationError: *retry* is not a policy.
    """

    url: str | None = None
    token: str | TokenFunction | None = field(default=None, repr=False)
    server: str | None = None
    certificate: str | os.PathLike[str] | None = None
    auth: HttpAuth | None = field(default=None, repr=False)
    client: HttpClient | None = field(default=None, repr=False)
    registry: tuple[str, str] | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
    version: str = "v1"
    limits: Limits = field(factory=Limits)
    retry: RetryPolicy | None = field(default=RETRY, validator=_check_retry)
    ledger: str | os.PathLike[str] | None = None
    transport: Transport | None = None
