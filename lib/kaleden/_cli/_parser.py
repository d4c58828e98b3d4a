"""The command line's grammar; no command is loaded for it."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from kaleden._cli._io import EXPLAINED
from kaleden._engine._config import Limits
from kaleden._version import __version__


def count(most: int | None = None) -> Callable[[str], int]:
    """Make a reader of whole numbers from 1."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
        if value < 1 or (most is not None and value > most):
            ceiling = "" if most is None else f" to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is no number from 1{ceiling}")
        return value

    return read


def number(text: str) -> float:
    """Read a number that is not negative."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number, 0 or more")
    return value


def seconds(text: str) -> float:
    """Read a time that is to pass."""
    value = number(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def variable(text: str) -> tuple[str, str]:
    """Read ``KEY=VALUE``, or ``KEY`` for a variable of this process; no message shows a value."""
    key, equals, value = text.partition("=")
    if equals:
        return key, value

    if key not in os.environ:
        raise argparse.ArgumentTypeError(f"{key!r} is not set here: write {key}=VALUE")
    return key, os.environ[key]


def add_serve_options(parser: argparse.ArgumentParser) -> None:
    """Add them to a parser."""
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
    add("--json", action="store_true", help="print where it is as one line of JSON")


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


SHELLS = ("bash", "fish", "tcsh", "zsh")
PROGRAM = "-- CMD [ARG ...]"

_PURPOSE = """\
Start, watch and end compute sessions on the CANFAR Science Platform.

The server and the login are found as kaleden.Session() does: in the options, in CANFAR_URL with
CANFAR_TOKEN or CANFAR_CERTIFICATE, in what `canfar login` has saved, or in ~/.ssl/cadcproxy.pem.
`kaleden doctor` tells what was found, and what is wrong with it.
"""
_RUN = """\
Launch sessions, show how they stand and what they write until they have ended, and clean up.
States go to standard error and logs to standard output, with the replica's name before each line if
there are several. Ctrl-C ends all the sessions.

The command comes after `--`. The server splits arguments at spaces and knows no quoting, so none
can have a space; what would not arrive as it is written is refused.
"""


class Commands(Protocol):
    """What argparse makes for the commands of a program."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser:
        """Add a command."""
        ...


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line.

    Raises:
        SystemExit: it cannot be understood, or asks for help.
    """
    words, program = _split(list(argv))
    parser = build_parser()
    options, others = parser.parse_known_args(words)
    if others:
        hint = f": what to run comes after --, as in [{PROGRAM}]" if words[0] == "run" else ""
        parser.error(f"unrecognized arguments: {' '.join(others)}{hint}")
    options.program = program
    return options


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="kaleden",
        description=_PURPOSE,
        epilog=EXPLAINED,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kaleden {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (_demo, _serve, _ps, _run, _logs, _rm, _reap, _doctor, _completion):
        add(commands)
    return parser


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off what `run` is to run: argparse takes only some of it where options are between."""
    if words[:1] != ["run"] or "--" not in words:
        return words, []

    at = words.index("--")
    return words[:at], words[at + 1 :]


def _command(commands: Commands, name: str, text: str, **others: Any) -> argparse.ArgumentParser:
    first = text.partition("\n")[0].removesuffix(".")
    made = commands.add_parser(
        name,
        help=others.pop("help", first[0].lower() + first[1:]),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **others,
    )
    made.set_defaults(command=name)
    return made


def _add_where(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the server is, and who asks."""
    group = parser.add_argument_group("server and login")
    add = group.add_argument
    add("--url", help="a Skaha server, such as https://ws-uv.canfar.net/skaha")
    add("--server", metavar="NAME", help="a server that canfar has saved, with its login")
    token = group.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file", metavar="PATH", help="a file with a bearer token; - for standard input"
    )
    token.add_argument(
        "--token",
        help="a bearer token; others on this machine can see it: rather set CANFAR_TOKEN",
    )
    add("--certificate", metavar="PATH", help="an X.509 proxy certificate, a PEM file")
    add(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="for one attempt of a request (CANFAR_TIMEOUT, or 30)",
    )
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help="%(default)s by default")


def _add_json(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {what} as JSON")


def _demo(commands: Commands) -> None:
    parser = _command(
        commands,
        "demo",
        "Launch a dozen sessions, watch them, collect their results, clean up.\n"
        "It brings a platform of its own, unless --url or --server names one.",
    )
    add = parser.add_argument
    add("--replicas", type=count(1000), default=12, metavar="N", help="sessions (%(default)s)")
    add("--image", default="skaha/astroml:latest", help="an image with python3 (%(default)s)")
    _add_json(parser, "what each replica found, and what is left,")
    _add_where(parser)


def _serve(commands: Commands) -> None:
    parser = _command(
        commands,
        "serve",
        "Run the embedded platform: a Skaha server on this machine.\n"
        "It prints its URL and token. Ctrl-C ends it and all its sessions; that is status 0.",
    )
    add_serve_options(parser)


def _ps(commands: Commands) -> None:
    parser = _command(commands, "ps", "List your sessions.")
    add = parser.add_argument
    add("--kind", help="only this kind, such as headless")
    add("--status", help="only this status, such as Running")
    add(
        "--view",
        choices=("all", "interactive"),
        help="all: everybody's, with few facts; interactive: none that are headless",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-q", "--quiet", action="store_true", help="print ids only")
    what.add_argument("--json", action="store_true", help="print all facts as JSON")
    _add_where(parser)


def _run(commands: Commands) -> None:
    parser = _command(
        commands,
        "run",
        _RUN,
        help="launch sessions, show their states and logs until they have ended, clean up",
        usage=f"%(prog)s NAME IMAGE [options] [{PROGRAM}]",
    )
    add = parser.add_argument
    add("name", metavar="NAME", help="lower-case letters, digits and inner hyphens")
    add("image", metavar="IMAGE", help="project/name:tag, with or without a host before it")
    add("--replicas", type=count(), default=1, metavar="N", help="sessions (%(default)s)")
    add("--cores", type=number, help="CPU cores, 1 or more; what is free if left out")
    add("--ram", type=count(), metavar="GIB", help="memory; what is free if left out")
    add("--gpu", type=count(), metavar="N", help="number of GPUs")
    add("--kind", default="headless", help="%(default)s by default")
    add(
        "-e",
        "--env",
        type=variable,
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="set a variable, or pass on this shell's; may be repeated",
    )
    add("--ledger", metavar="PATH", help="write launches down, for `kaleden reap`")
    add("--grace", type=seconds, default=30.0, metavar="SECONDS", help="for clean-up (30)")
    add("--no-logs", dest="logs", action="store_false", help="show states only")
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--release",
        action="store_true",
        help="if all goes well, leave the sessions on the platform",
    )
    after.add_argument(
        "--detach",
        action="store_true",
        help="launch only: print the ids, and leave the sessions to themselves",
    )
    _add_json(parser, "one line for each thing that happens,")
    _add_where(parser)


def _logs(commands: Commands) -> None:
    parser = _command(commands, "logs", "Print what sessions have written.")
    add = parser.add_argument
    add("ids", nargs="+", metavar="ID", help="a session's id, from ps; not its name")
    add("-f", "--follow", action="store_true", help="go on until the sessions have ended")
    _add_json(parser, "the logs (with --follow: a line for each line)")
    _add_where(parser)


def _rm(commands: Commands) -> None:
    parser = _command(commands, "rm", "End sessions, and make sure that they are gone.")
    add = parser.add_argument
    add("ids", nargs="*", default=[], metavar="ID", help="a session's id, from ps; not its name")
    add("--prefix", help="instead: all sessions whose names begin so")
    add("--kind", help="with --prefix: only this kind")
    add("--status", help="with --prefix: only this status")
    add("--dry-run", action="store_true", help="with --prefix: only tell which")
    _add_json(parser, "what became of each")
    _add_where(parser)


def _reap(commands: Commands) -> None:
    parser = _command(
        commands,
        "reap",
        "End the sessions that a ledger says were left by processes that are gone.",
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="the ledger")
    add("--dry-run", action="store_true", help="only tell what is left; status 1 if anything is")
    add(
        "--elsewhere",
        action="store_true",
        help="end also what was launched on other machines or in other containers, where nobody "
        "can tell from here whether the launching process is gone",
    )
    add(
        "--create-timeout",
        type=number,
        default=Limits().create_timeout,
        metavar="SECONDS",
        help="how long the server may be at work on a create (%(default)g)",
    )
    add(
        "--settle",
        type=number,
        default=Limits().settle,
        metavar="SECONDS",
        help="how long after a create its session may be missing in lists (%(default)g)",
    )
    _add_json(parser, "what was left, and what became of it,")
    _add_where(parser)


def _doctor(commands: Commands) -> None:
    parser = _command(
        commands,
        "doctor",
        "Tell how kaleden reaches its server and who it is there, and what is wrong with it.\n"
        "It sends a few requests that change nothing.",
    )
    _add_json(parser, "what was found")
    _add_where(parser)


def _completion(commands: Commands) -> None:
    parser = _command(
        commands,
        "completion",
        "Print a script that completes this command line in a shell.\n"
        "It needs the extra `completion`: pip install 'kaleden[completion]'.",
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    parser.set_defaults(json=False)
