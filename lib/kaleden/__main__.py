"""The command line: ``kaleden`` or ``python -m kaleden``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import anyio

from kaleden._errors import KaledenError
from kaleden._reap_command import add_parser as add_reap
from kaleden._version import __version__

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the number of SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names.

    Returns:
        The exit status: 0 if it did what it should, 1 if not, 2 if it could not begin, 130 after
        Ctrl-C.
    """
    options = _parser().parse_args(argv)
    try:
        command: Callable[[argparse.Namespace], int] = options.command
        return command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except (KaledenError, ImportError, OSError) as error:
        print(f"kaleden: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kaleden", description=sys.modules["kaleden"].__doc__)
    parser.add_argument("--version", action="version", version=f"kaleden {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="launch a dozen sessions, watch them, collect their results, clean up"
    )
    demo.add_argument("--replicas", type=_replicas, default=12, metavar="N", help="sessions (12)")
    demo.add_argument("--backend", choices=("asyncio", "trio"), default="asyncio")
    demo.add_argument("--url", help="a Skaha server; by default a platform of its own")
    demo.add_argument("--token", help="a bearer token for --url")
    demo.set_defaults(command=_demo)
    demo.add_argument("--image", default="skaha/astroml:latest", help="an image with python3")
    add_reap(commands)
    return parser


def _replicas(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")

    return int(text)


def _demo(options: argparse.Namespace) -> int:
    try:
        from rich.console import Console  # noqa: PLC0415  # of an extra

        from kaleden._demo import DemoOptions, run  # noqa: PLC0415  # of an extra
    except ImportError as error:
        raise ImportError(f"the demo needs more: pip install 'kaleden[demo]' ({error})") from error

    chosen = DemoOptions(options.replicas, options.image, options.url, options.token)
    return anyio.run(run, chosen, Console(), backend=options.backend)


if __name__ == "__main__":
    sys.exit(main())
