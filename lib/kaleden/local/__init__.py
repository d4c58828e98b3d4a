"""The embedded platform: a Skaha server on this machine.

It speaks the session API as CANFAR's servers do, quirks included, and runs headless sessions as
real local processes. It is what to develop and test against before going to CANFAR.

::

    async with LocalPlatform() as platform:
        async with kaleden.AsyncSession(url=platform.url, token=platform.token) as session:
            ...

Logins can be tried as well: with ``LocalPlatform(tls=True)`` it serves https, and::

    certificate = platform.issue_certificate()      # as `cadc-get-cert` makes them
    context = platform.ssl_context(certificate)  # trusts the platform, and shows who asks
    platform.add_user("bob", max_interactive_sessions=1)
    token = platform.token_for("bob", expires_in=60)

``python -m kaleden.local`` runs it by itself. It needs the extra ``local``, and Linux or macOS.

What differs from CANFAR, on purpose:

* There are no images: a headless session's command runs on this machine, as this user, and
  ``python`` is the interpreter that runs the platform. Any image of a known registry is taken.
* Every session starts in an empty directory of its own (``PWD``); ``HOME`` is shared by all.
* Sessions other than headless are no processes: their ``connectURL`` shows a small page.
* GPUs are counted and not provided. Memory is limited by what a session's processes use in all;
  cores are book-keeping.
* Sessions that find no room wait in one queue, strictly in their order.
* Users are those that are added, and the one that is there from the start; there are no cookies,
  and one group, of those who may use the platform.
* A call without a login is 401; newer servers answer 400, which ``anonymous=400`` does.
* Certificates are those of the platform's own authority. One that is expired or foreign fails the
  TLS handshake, with an alert.
* Any login at the registry is taken for the images below ``images.canfar.net/private/``.
* A deleted session's processes have about a second to end, not half a minute.
* ``/v0`` gives the same answers as ``/v1``.
* The pages ``/`` and ``/logControl`` are missing.
"""

from __future__ import annotations

from importlib.util import find_spec as _find_spec

if not all(map(_find_spec, ("anycorn", "starlette", "trustme"))):
    raise ImportError("kaleden.local needs more packages: pip install 'kaleden[local]'")

from kaleden._public import publish as _publish
from kaleden.local._api._app import Statistics
from kaleden.local._platform._model import (
    Event,
    Forget,
    HTTPError,
    Kind,
    Phase,
    Session,
    Settings,
    Spec,
    Start,
    Status,
    Stop,
)
from kaleden.local._platform._state_machine import Platform
from kaleden.local._server import LocalPlatform

__all__ = (
    "Event",
    "Forget",
    "HTTPError",
    "Kind",
    "LocalPlatform",
    "Phase",
    "Platform",
    "Session",
    "Settings",
    "Spec",
    "Start",
    "Statistics",
    "Status",
    "Stop",
)

_publish(__name__, __all__, globals())
