"""``python -m kaleden.local``: the embedded platform by itself.

Ctrl-C and SIGTERM are the ways to end it: it ends every process it started, and exits with 0.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence

import anyio

from kaleden._serve_options import add_serve_options
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


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kaleden.local", description="Run a Skaha server on this machine."
    )
    add_serve_options(parser)
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
            told = _facts if options.json else _how_to_use
            print(told(platform, tls=options.tls), flush=True)  # noqa: T201 - its output
            async for _ in signals:
                break


def _how_to_use(platform: LocalPlatform, *, tls: bool) -> str:
    parts = [_HOW_TO_USE.format(url=platform.url, token=platform.token)]
    if tls:
        parts.append(_HOW_TO_TRUST_IT.format(url=platform.url, **_trust(platform)))
    return "\n".join([*parts, _HOW_TO_END_IT])


def _facts(platform: LocalPlatform, *, tls: bool) -> str:
    trust = _trust(platform) if tls else {}
    return json.dumps({"url": platform.url, "token": platform.token, **trust})


def _trust(platform: LocalPlatform) -> dict[str, str]:
    certificate = platform.issue_certificate(expires_in=30 * _DAY)
    return {"ca": str(platform.ca_pem), "user": platform.user, "certificate": str(certificate)}


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
