"""The client that a command works with, made of its options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import anyio

from kaleden._cli._io import Output
from kaleden._cli._signals import Interrupted, until_interrupted
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._errors import ConfigurationError, FailureKind
from kaleden._results._batch import Failure
from kaleden._wire import SessionInfo


def by_id(sessions: Iterable[SessionInfo]) -> dict[str, SessionInfo]:
    """Sort sessions by their ids."""
    return {info.id: info for info in sessions}


def names_apart(
    keys: Iterable[str], listed: Mapping[str, SessionInfo], command: str
) -> dict[str, Failure]:
    """Find the keys that are no ids, but names of sessions, and say what to give instead."""
    named: dict[str, list[str]] = {}
    for info in listed.values():
        named.setdefault(info.name, []).append(info.id)

    return {
        key: Failure(
            key,
            FailureKind.INVALID,
            f"that is the name of {', '.join(named[key.lower()])}: {command} takes ids",
        )
        for key in keys
        if key not in listed and key.lower() in named
    }


T = TypeVar("T")


def open_session(options: argparse.Namespace, **others: Any) -> AsyncSession:
    """Make the client that the options tell of; it is not entered yet.

    Raises:
        ConfigurationError: no server is named, or a login cannot be used.
        OSError: the file with the token cannot be read.
    """
    token = options.token if options.token_file is None else _read_token(options.token_file)
    return AsyncSession(
        options.url,
        token,
        server=options.server,
        certificate=options.certificate,
        timeout=options.timeout,
        **others,
    )


def perform(
    session: AsyncSession,
    work: Callable[[AsyncSession], Awaitable[int]],
    options: argparse.Namespace,
    output: Output,
) -> int:
    """Do *work* with the client, until its end or a signal, which cancels it.

    Returns:
        The exit status.
    """

    async def opened() -> int:
        async with session:
            return await work(session)

    def hurry() -> None:
        left = runtime_of(session).describe_leftovers()
        output.note(f"interrupted again: {left or 'nothing is left that kaleden knows of'}")

    done: int | Interrupted = run_on(options.backend, until_interrupted, opened, hurry)
    if isinstance(done, Interrupted):
        output.note("interrupted")
        return done.status

    return done


def run_on(backend: str, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run *work* in an event loop of its own.

    Raises:
        ConfigurationError: that kind of event loop is not installed.
    """
    if backend == "trio" and find_spec("trio") is None:
        raise ConfigurationError("trio is not installed: pip install 'kaleden[trio]'")

    return anyio.run(work, *arguments, backend=backend)


def _read_token(path: str) -> str:
    try:
        if path != "-":
            text = Path(path).read_text(encoding="utf-8")
        else:
            # None if it was closed when the process started.
            text = sys.stdin.read() if sys.stdin else ""
    except UnicodeDecodeError:
        raise ConfigurationError(f"--token-file {path!r} is no text") from None

    if not text.strip():
        raise ConfigurationError(f"--token-file {path!r} is empty")

    return text.strip()
