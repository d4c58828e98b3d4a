"""``python -m kaleden.local``: the embedded platform by itself.

Ctrl-C and SIGTERM are the ways to end it: it ends every process it started, and exits with 0.
"""

from __future__ import annotations

import argparse
import math
import signal
import sys
from collections.abc import Sequence

import anyio

from kaleden.local import LocalPlatform

_HOW_TO_USE = """\
A Skaha server listens at {url}
The bearer token is {token}

    export CANFAR_URL={url}/v1 CANFAR_TOKEN={token}
    curl -H "Authorization: Bearer {token}" {url}/v1/session
"""
_HOW_TO_TRUST_IT = """\
The certificate of its authority is in {ca}
A proxy certificate of {user}, for 30 days, is in {certificate}

    export SSL_CERT_FILE={ca} CANFAR_URL={url}/v1 CANFAR_CERTIFICATE={certificate}
    curl --cacert {ca} --cert {certificate} {url}/v1/session
"""
_HOW_TO_END_IT = "Ctrl-C ends it, and every session's processes."
_DAY = 86400.0


def _capacity(text: str) -> float:
    value = float(text)
    if not 1 <= value < math.inf:
        raise ValueError(text)
    return value


def _port(text: str) -> int:
    value = int(text)
    if value not in range(65536):
        raise ValueError(text)
    return value


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kaleden.local", description="Run a Skaha server on this machine."
    )
    add = parser.add_argument
    add("--port", type=_port, default=0, help="on 127.0.0.1 (default: a free one)")
    add("--token", help="the bearer token to accept (default: a random one)")
    add("--tls", action="store_true", help="serve https, and take certificates too")
    add("--state", metavar="FILE", help="keep the sessions in this SQLite file")
    add(
        "--cores",
        type=_capacity,
        help="capacity in cores, at least 1 (default: 16 times what there is)",
    )
    add("--ram", type=_capacity, help="capacity in GiB, at least 1 (default: 4 for each core)")
    add("--user", default="local", help="the name of the user (default: %(default)s)")
    add("--max-interactive-sessions", type=int, default=5, metavar="N", help="default: %(default)s")
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help="default: %(default)s")
    return parser.parse_args(arguments)


async def run(options: argparse.Namespace) -> None:
    """Serve until a signal asks to stop."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with LocalPlatform(
            port=options.port,
            token=options.token,
            state=options.state,
            cores=options.cores,
            ram=options.ram,
            user=options.user,
            max_interactive_sessions=options.max_interactive_sessions,
            tls=options.tls,
        ) as platform:
            print(_how_to_use(platform, tls=options.tls), flush=True)  # noqa: T201 - its output
            async for _ in signals:
                break


def _how_to_use(platform: LocalPlatform, *, tls: bool) -> str:
    parts = [_HOW_TO_USE.format(url=platform.url, token=platform.token)]
    if tls:
        certificate = platform.issue_certificate(expires_in=30 * _DAY)
        trust = {"ca": platform.ca_pem, "user": platform.user, "certificate": certificate}
        parts.append(_HOW_TO_TRUST_IT.format(url=platform.url, **trust))
    return "\n".join([*parts, _HOW_TO_END_IT])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = parse(arguments)
    try:
        anyio.run(run, options, backend=options.backend)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"kaleden.local: {error}", file=sys.stderr)  # noqa: T201 - its output
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
