"""From the command line to a command, and from what it raised to an exit status."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Final

from kaleden._auth import EXPLAINED_BY
from kaleden._cli._io import NOT_ALL, REFUSED, UNREAD, CannotWrite, LogNotes, Output, ReaderGone
from kaleden._cli._parser import parse
from kaleden._cli._signals import INTERRUPTED
from kaleden._errors import ConnectFailed, KaledenError, RequestError, ScopeError

_DOCTOR: Final = "`kaleden doctor`"
_EXPECTED: Final = (KaledenError, CannotWrite, ImportError, OSError)

logger = logging.getLogger("kaleden")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names.

    Returns:
        The exit status; see `kaleden._cli._io`.
    """
    output = Output(json=False)
    notes = LogNotes(output)
    logger.addHandler(notes)
    try:
        with output.redirected():
            options = parse(sys.argv[1:] if argv is None else argv)
            output.json = options.json
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
    command = import_module(f"kaleden._cli._commands._{name}").main
    return command


def _status(error: BaseException, output: Output) -> int | None:
    """Report an error, and return the exit status; None for an error that is a bug."""
    errors = list(_lone(error))
    for each in errors:
        if isinstance(each, ReaderGone):
            return UNREAD
        if isinstance(each, KeyboardInterrupt):
            output.note("interrupted")
            return INTERRUPTED

    if not all(isinstance(each, _EXPECTED) for each in errors):
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
