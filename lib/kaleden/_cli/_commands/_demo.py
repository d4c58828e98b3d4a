"""``kaleden demo``: launch a dozen sessions, watch them, collect their results, clean up."""

from __future__ import annotations

import argparse
import json

from kaleden._cli._client import open_session, run_on
from kaleden._cli._io import Output


def main(options: argparse.Namespace, output: Output) -> int:
    """Run the demo."""
    try:
        from rich.console import Console  # noqa: PLC0415  # of an extra

        from kaleden._cli._demo._run import DemoOptions, run  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ImportError(
            f"the demo requires an extra: pip install 'kaleden[demo]' ({error})"
        ) from error

    names_server = options.url is not None or options.server is not None
    session = open_session(options) if names_server else None
    demo = DemoOptions(options.replicas, options.image, session)
    result = run_on(options.backend, run, demo, Console(stderr=output.json))
    if output.json:
        outcomes = None if result.outcomes is None else json.loads(result.outcomes.to_json())
        output.write_document({"outcomes": outcomes and outcomes["outcomes"], "left": result.left})
    return result.status
