"""The argument parser of all commands; importing it imports no command."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from kaleden._cli._argument_types import (
    make_count_parser,
    parse_capacity,
    parse_limit,
    parse_number,
    parse_port,
    parse_seconds,
    parse_variable,
)
from kaleden._cli._io import EXIT_STATUSES
from kaleden._engine._config import Limits
from kaleden._version import __version__

_BACKEND_HELP: Final = "event loop to use (default: %(default)s)"


# argparse gives the type no public name.
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # pyright: ignore[reportPrivateUsage]

SHELLS: Final = ("bash", "fish", "tcsh", "zsh")
COMMAND_USAGE: Final = "-- CMD [ARG ...]"

_DESCRIPTION: Final = """\
Launch, watch and end compute sessions on the CANFAR Science Platform.

The server and the login are found as by kaleden.Session(): in the options, in CANFAR_URL with
CANFAR_TOKEN or CANFAR_CERTIFICATE, in the files of `canfar login`, or in ~/.ssl/cadcproxy.pem.
`kaleden doctor` shows which are used, and detects common problems.
"""
_RUN_DESCRIPTION: Final = """\
Launch sessions, show their states and logs until they have ended, and clean up.
States are written to standard error and logs to standard output. With --replicas, each line of a
log begins with the name of the replica. Ctrl-C ends all sessions.

The command to run comes after `--`. The server splits arguments at spaces and does not support
quoting, so an argument cannot contain a space. A command that would arrive changed is rejected.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Returns:
        The options; `program` is the command that `run` runs.

    Raises:
        SystemExit: the arguments are invalid, or ask for the help or the version.
    """
    arguments, program = _split(list(argv))
    parser = build_parser()
    options, others = parser.parse_known_args(arguments)
    if others:
        is_run = arguments[0] == "run"
        hint = f": the command to run comes after --, as in [{COMMAND_USAGE}]" if is_run else ""
        parser.error(f"unrecognized arguments: {' '.join(others)}{hint}")
    options.program = program
    return options


def build_parser() -> argparse.ArgumentParser:
    """Create the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="kaleden",
        description=_DESCRIPTION,
        epilog=EXIT_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kaleden {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (
        _add_demo,
        _add_serve,
        _add_ps,
        _add_run,
        _add_logs,
        _add_rm,
        _add_reap,
        _add_doctor,
        _add_completion,
    ):
        add(commands)
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split the arguments of `run` at ``--``.

    argparse would take only a part of the command after ``--`` if options are between the
    positional arguments.
    """
    if arguments[:1] != ["run"] or "--" not in arguments:
        return arguments, []

    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _add_command(
    commands: Commands, name: str, text: str, **others: Any
) -> argparse.ArgumentParser:
    first = text.partition("\n")[0].removesuffix(".")
    parser = commands.add_parser(
        name,
        help=others.pop("help", first[0].lower() + first[1:]),
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **others,
    )
    parser.set_defaults(command=name)
    return parser


def _add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server and the login."""
    group = parser.add_argument_group("server and login")
    add = group.add_argument
    add("--url", help="URL of a Skaha server, such as https://ws-uv.canfar.net/skaha")
    add("--server", metavar="NAME", help="server that `canfar login` has saved, with its login")
    token = group.add_mutually_exclusive_group()
    token.add_argument(
        "--token-file", metavar="PATH", help="file with a bearer token; - for standard input"
    )
    token.add_argument(
        "--token", help="bearer token; other users of this machine can see it: prefer CANFAR_TOKEN"
    )
    add("--certificate", metavar="PATH", help="PEM file with an X.509 proxy certificate")
    add(
        "--timeout",
        type=parse_seconds,
        metavar="SECONDS",
        help="time-out of each attempt of a request (default: CANFAR_TIMEOUT, or 30)",
    )
    add(
        "--outage-timeout",
        type=parse_limit,
        default=Limits().outage_timeout,
        metavar="SECONDS",
        help="how long to wait for a server that is away while sessions run; none for no limit "
        "(default: %(default)g)",
    )
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help=_BACKEND_HELP)


def _add_json(parser: argparse.ArgumentParser, results: str) -> None:
    parser.add_argument("--json", action="store_true", help=f"print {results} as JSON")


def _add_demo(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "demo",
        "Launch a dozen sessions, watch them, collect their results, clean up.\n"
        "Starts an embedded platform, unless --url or --server is given.",
    )
    add = parser.add_argument
    add(
        "--replicas",
        type=make_count_parser(1000),
        default=12,
        metavar="N",
        help="number of sessions (default: %(default)s)",
    )
    add(
        "--image",
        default="skaha/astroml:latest",
        help="image that contains python3 (default: %(default)s)",
    )
    _add_json(parser, "the result of each replica and the ids of sessions that are left")
    _add_connection_options(parser)


def _add_serve(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "serve",
        "Run the embedded platform: a Skaha server on this machine.\n"
        "Prints its URL and token. Ctrl-C ends it and all its sessions, with exit status 0.",
    )
    add = parser.add_argument
    add("--port", type=parse_port, default=0, help="port on 127.0.0.1 (default: a free port)")
    add("--token", help="bearer token to accept (default: a random token)")
    add("--tls", action="store_true", help="serve https, and accept client certificates")
    add("--state", metavar="FILE", help="SQLite file that stores the sessions")
    add(
        "--cores",
        type=parse_capacity,
        help="capacity in cores, at least 1 (default: 16 times this machine's)",
    )
    add("--ram", type=parse_capacity, help="capacity in GiB, at least 1 (default: 4 per core)")
    add("--user", default="local", help="name of the user (default: %(default)s)")
    add(
        "--max-interactive-sessions",
        type=int,
        default=5,
        metavar="N",
        help="limit of interactive sessions (default: %(default)s)",
    )
    add("--backend", choices=("asyncio", "trio"), default="asyncio", help=_BACKEND_HELP)
    add("--json", action="store_true", help="print the URL and the token as one line of JSON")


def _add_ps(commands: Commands) -> None:
    parser = _add_command(commands, "ps", "List your sessions.")
    add = parser.add_argument
    add("--kind", help="list only this kind, such as headless")
    add("--status", help="list only this status, such as Running")
    add(
        "--view",
        choices=("all", "interactive"),
        help="all: sessions of all users, with few columns; interactive: omit headless sessions",
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("-q", "--quiet", action="store_true", help="print only ids")
    output.add_argument("--json", action="store_true", help="print all fields as JSON")
    _add_connection_options(parser)


def _add_run(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "run",
        _RUN_DESCRIPTION,
        help="launch sessions, show their states and logs until they have ended, clean up",
        usage=f"%(prog)s NAME IMAGE [options] [{COMMAND_USAGE}]",
    )
    _add_specification(parser)
    add = parser.add_argument
    add("--ledger", metavar="PATH", help="record launches in this file, for `kaleden reap`")
    add(
        "--grace",
        type=parse_seconds,
        default=45.0,
        metavar="SECONDS",
        help="time limit of the clean-up (default: 45)",
    )
    add("--no-logs", dest="logs", action="store_false", help="show only states")
    add(
        "--on-unread",
        choices=("release", "destroy"),
        default="release",
        help="action on a session whose log could not be read to its end (default: release)",
    )
    after = parser.add_mutually_exclusive_group()
    after.add_argument(
        "--release",
        action="store_true",
        help="leave the sessions on the platform, unless the run is interrupted",
    )
    after.add_argument(
        "--detach",
        action="store_true",
        help="launch the sessions, print their ids and exit; you have to end them",
    )
    _add_json(parser, "one line per event")
    _add_connection_options(parser)


def _add_specification(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that describe the sessions to launch."""
    add = parser.add_argument
    add(
        "name",
        metavar="NAME",
        help="name of the sessions: lower-case letters, digits and inner hyphens",
    )
    add("image", metavar="IMAGE", help="image: project/name:tag, optionally with a host")
    add(
        "--replicas",
        type=make_count_parser(),
        default=1,
        metavar="N",
        help="number of sessions (default: %(default)s)",
    )
    add("--cores", type=parse_number, help="CPU cores, 1 or more (default: flexible)")
    add("--ram", type=make_count_parser(), metavar="GIB", help="memory in GiB (default: flexible)")
    add("--gpu", type=make_count_parser(), metavar="N", help="number of GPUs")
    add("--kind", default="headless", help="kind of the sessions (default: %(default)s)")
    add(
        "-e",
        "--env",
        type=parse_variable,
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="set an environment variable, or pass on its value in this shell; can be repeated",
    )


def _add_logs(commands: Commands) -> None:
    parser = _add_command(commands, "logs", "Print the logs of sessions.")
    add = parser.add_argument
    add("ids", nargs="+", metavar="ID", help="id of a session, as printed by `kaleden ps`")
    add("-f", "--follow", action="store_true", help="continue until the sessions have ended")
    add(
        "--max-bytes",
        type=make_count_parser(),
        metavar="N",
        help="print the last N bytes of each log (default: 64 MiB); not with --follow",
    )
    _add_json(parser, "the logs (with --follow: one JSON object per line of a log)")
    _add_connection_options(parser)


def _add_rm(commands: Commands) -> None:
    parser = _add_command(commands, "rm", "End sessions, and check that they are gone.")
    add = parser.add_argument
    add(
        "ids",
        nargs="*",
        default=[],
        metavar="ID",
        help="id of a session, as printed by `kaleden ps`",
    )
    add("--prefix", help="end all sessions with this prefix of their names, instead of ids")
    add("--kind", help="with --prefix: end only this kind")
    add("--status", help="with --prefix: end only this status")
    add("--dry-run", action="store_true", help="with --prefix: list the sessions, end none")
    add(
        "--ignore-missing",
        action="store_true",
        help="exit with status 0 also if the server does not list an id",
    )
    _add_json(parser, "the outcome for each session")
    _add_connection_options(parser)


def _add_reap(commands: Commands) -> None:
    parser = _add_command(
        commands, "reap", "End the sessions of processes that were killed, as recorded in a ledger."
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="ledger of `kaleden run --ledger` or Session(ledger=)")
    add(
        "--dry-run",
        action="store_true",
        help="list the sessions that are left, end none; exit with status 1 if there are any",
    )
    add(
        "--elsewhere",
        action="store_true",
        help="end also sessions launched on other machines or in other containers; it cannot be "
        "checked here whether the processes that launched them have ended",
    )
    add(
        "--create-timeout",
        type=parse_number,
        default=Limits().create_timeout,
        metavar="SECONDS",
        help="longest time that the server works on a create (default: %(default)g)",
    )
    add(
        "--settle",
        type=parse_number,
        default=Limits().settle,
        metavar="SECONDS",
        help="time after a create within which lists may omit its session (default: %(default)g)",
    )
    _add_json(parser, "the sessions that were left and their outcomes")
    _add_connection_options(parser)


def _add_doctor(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "doctor",
        "Check the configuration, the server and the login, and suggest corrections.\n"
        "Sends a few requests that change nothing.",
    )
    _add_json(parser, "the configuration and the checks")
    _add_connection_options(parser)


def _add_completion(commands: Commands) -> None:
    parser = _add_command(
        commands,
        "completion",
        "Print a script for completion of this command line in a shell.\n"
        "Requires the extra `completion`: pip install 'kaleden[completion]'.",
    )
    parser.add_argument("shell", choices=SHELLS, help="shell to generate the script for")
    parser.set_defaults(json=False)
