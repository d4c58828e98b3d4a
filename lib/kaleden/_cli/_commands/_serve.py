"""``kaleden serve``: run the embedded platform."""

from __future__ import annotations

import argparse
import signal

import anyio

from kaleden._cli._client import run_on
from kaleden._cli._io import NOT_STARTED, SUCCESS, Output
from kaleden.local import LocalPlatform

_USAGE = """\
A Skaha server listens at {url}
The bearer token is {token}

    export CANFAR_URL={url}/v1 CANFAR_TOKEN={token}
    curl -H "Authorization: Bearer {token}" {url}/v1/session
"""
_TLS_USAGE = """\
The certificate of its authority is in {ca}
A proxy certificate of user {user}, valid for 30 days, is in {certificate}

    export SSL_CERT_FILE={ca} CANFAR_URL={url}/v1 CANFAR_CERTIFICATE={certificate}
    curl --cacert {ca} --cert {certificate} {url}/v1/session
"""
_EXIT_HINT = "Ctrl-C stops it, and ends the processes of all sessions."
_DAY = 86400.0


def main(options: argparse.Namespace, output: Output) -> int:
    """Serve until SIGINT or SIGTERM."""
    try:
        run_on(options.backend, _serve, options, output)
    except (RuntimeError, ValueError) as error:
        output.write_note(f"kaleden: {error}")
        return NOT_STARTED
    return SUCCESS


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
            facts = _describe(platform, tls=options.tls)
            if options.json:
                output.write_document(facts)
            else:
                parts = [_USAGE, _TLS_USAGE, _EXIT_HINT] if options.tls else [_USAGE, _EXIT_HINT]
                output.write_line("\n".join(parts).format(**facts))
            async for _ in signals:
                break


def _describe(platform: LocalPlatform, *, tls: bool) -> dict[str, str]:
    facts = {"url": platform.url, "token": platform.token}
    if tls:
        facts["ca"] = str(platform.ca_pem)
        facts["user"] = platform.user
        facts["certificate"] = str(platform.issue_certificate(expires_in=30 * _DAY))
    return facts
