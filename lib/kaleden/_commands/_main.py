"""From the command line to a command, and from what it raised to an exit status."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Final

from kaleden._commands._output import CannotWrite, LogNotes, Output, let_go, open_all
from kaleden._commands._parser import parse
from kaleden._commands._status import NOT_ALL, REFUSED, UNREAD
from kaleden._errors import ConnectFailed, KaledenError, RequestError, ScopeError
from kaleden._interrupt import INTERRUPTED
from kaleden._login import EXPLAINED_BY

_DOCTOR: Final = "`kaleden doctor`"

logger = logging.getLogger("kaleden")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names.

    Returns:
        The exit status; see `kaleden._commands._status`.
    """
    open_all()
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
        return _run(options, Output(json=options.json))
    finally:
        _flush()


def _run(options: argparse.Namespace, output: Output) -> int:
    notes = LogNotes(output)
    logger.addHandler(notes)
    try:
        return _command(options.command)(options, output)
    except BaseException as error:
        status = _status(error, output)
        if status is None:
            raise
        return status
    finally:
        logger.removeHandler(notes)


def _command(name: str) -> Callable[[argparse.Namespace, Output], int]:
    # Loaded when it is called, since most of them need more than the others.
    command: Callable[[argparse.Namespace, Output], int]
    command = import_module(f"kaleden._commands._{name}").main
    return command


def _status(error: BaseException, output: Output) -> int | None:
    """Tell people of an error; None for one that nobody expects."""
    errors = list(_lone(error))
    for each in errors:
        if isinstance(each, BrokenPipeError):
            return UNREAD
        if isinstance(each, KeyboardInterrupt):
            output.note("interrupted")
            return INTERRUPTED

    if not all(isinstance(each, KaledenError | ImportError | OSError) for each in errors):
        return None

    for each in errors:
        output.note(f"kaleden: {_told(each)}")
    begun = any(isinstance(each, RequestError | ScopeError | CannotWrite) for each in errors)
    return NOT_ALL if begun else REFUSED


def _told(error: BaseException) -> str:
    """Say what went wrong, and send people to the doctor for what a program looks up elsewhere."""
    if isinstance(error, ConnectFailed):
        return f"{error}: see {_DOCTOR}"

    return str(error).replace(EXPLAINED_BY, _DOCTOR)


def _lone(error: BaseException) -> Iterator[BaseException]:
    """Take what was raised out of groups."""
    errors: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    for each in errors:
        yield from _lone(each)
    if not errors:
        yield error


def _flush() -> None:
    """Write what argparse has printed, or let go of who does not want it."""
    try:
        sys.stdout.flush()
    except OSError:
        let_go()
