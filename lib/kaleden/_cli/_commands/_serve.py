"""``kaleden serve``: the embedded platform by itself."""

from __future__ import annotations

import argparse
import json
import signal

import anyio

from kaleden._cli._client import run_on
from kaleden._cli._io import DONE, REFUSED, Output
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


def main(options: argparse.Namespace, output: Output) -> int:
    """Serve until a signal asks to stop."""
    try:
        run_on(options.backend, _serve, options, output)
    except (RuntimeError, ValueError) as error:
        output.note(f"kaleden: {error}")
        return REFUSED
    return DONE


async def _serve(options: argparse.Namespace, output: Output) -> None:
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
            describe = _facts if options.json else _how_to_use
            output.line(describe(platform, tls=options.tls))
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
