"""``kaleden demo``: a dozen sessions launched at once, watched, read and ended."""

from __future__ import annotations

import argparse
import json

from kaleden._cli._client import open_session, run_on
from kaleden._cli._io import Output


def main(options: argparse.Namespace, output: Output) -> int:
    """Show what kaleden does."""
    try:
        from rich.console import Console  # noqa: PLC0415  # of an extra

        from kaleden._cli._demo import DemoOptions, run  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ImportError(f"the demo needs more: pip install 'kaleden[demo]' ({error})") from error

    names_server = options.url is not None or options.server is not None
    session = open_session(options) if names_server else None
    chosen = DemoOptions(options.replicas, options.image, session)
    result = run_on(options.backend, run, chosen, Console(stderr=output.json))
    if output.json:
        outcomes = None if result.outcomes is None else json.loads(result.outcomes.to_json())
        output.document({"outcomes": outcomes and outcomes["outcomes"], "left": result.left})
    return result.status
