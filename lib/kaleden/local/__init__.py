"""The embedded platform: a Skaha server on your own machine.

`LocalPlatform` serves the same session API as CANFAR's servers, with the same status codes and
error texts. Headless sessions run as real processes of this machine. Use it to develop and test a
program before you run it on CANFAR::

    import kaleden
    from kaleden.local import LocalPlatform

    async with LocalPlatform() as platform:
        async with kaleden.AsyncSession(url=platform.url, token=platform.token) as session:
            ...

``python -m kaleden.local`` (or ``kaleden serve``) runs the platform as a separate program. It
needs the extra ``local`` and Linux or macOS.

``LocalPlatform(tls=True)`` serves https and accepts client certificates, to test authentication.
You can add users, and create tokens and certificates for them::

    certificate = platform.issue_certificate()   # the format that `cadc-get-cert` writes
    context = platform.ssl_context(certificate)  # trusts this platform, sends this certificate
    platform.add_user("bob", max_interactive_sessions=1)
    token = platform.token_for("bob", expires_in=60)  # seconds

The platform differs from CANFAR on purpose in these points.

Sessions:

* Container images are not used. The command of a headless session runs on this machine, under
  the account that runs the platform. ``python`` is the interpreter that runs the platform. Every
  image name of a known registry is accepted.
* Each session starts in its own empty directory (``PWD``). All sessions share one ``HOME``.
* Sessions of the other kinds have no process. Their ``connectURL`` shows a small page.
* A deleted session's processes have about 1 second to end, instead of about 30 seconds.

Resources:

* Requested cores are counted, but their use is not limited. Memory is limited: a session is
  ended if its processes together use more than its limit. GPUs are counted, but not provided.
* When the capacity is used up, sessions wait in one queue, in strict first-in, first-out order.

Authentication:

* The only users are the first one (``user=``) and those added with ``add_user``. Cookies are not
  supported. There is one group: the users that may use the platform.
* A request without a token or certificate gets status 401. Newer servers return 400; pass
  ``anonymous=400`` for that.
* Certificates are issued by the platform's own authority. A certificate that has expired, or is
  from another authority, fails the TLS handshake with an alert.
* An image below ``images.canfar.net/private/`` needs a registry login. Any login is accepted.

HTTP:

* ``/v0`` returns the same responses as ``/v1``.
* The pages ``/`` and ``/logControl`` do not exist.
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
