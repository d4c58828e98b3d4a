"""Creating a client from command-line options, and running a command with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import anyio

from kaleden._cli._io import Output
from kaleden._cli._signals import Interrupted, run_until_interrupted
from kaleden._client._session import AsyncSession, runtime_of
from kaleden._errors import ConfigurationError
from kaleden._wire import SessionInfo


def index_by_id(sessions: Iterable[SessionInfo]) -> dict[str, SessionInfo]:
    """Return a mapping of ids to sessions."""
    return {info.id: info for info in sessions}


T = TypeVar("T")


def open_session(options: argparse.Namespace, **others: Any) -> AsyncSession:
    """Create a client from the options, without entering it.

    Raises:
        ConfigurationError: no server is configured, or the login cannot be used.
        OSError: the token file cannot be read.
    """
    token = options.token if options.token_file is None else _read_token(options.token_file)
    return AsyncSession(
        options.url,
        token,
        server=options.server,
        certificate=options.certificate,
        timeout=options.timeout,
        outage_timeout=options.outage_timeout,
        **others,
    )


def perform(
    session: AsyncSession,
    work: Callable[[AsyncSession], Awaitable[int]],
    options: argparse.Namespace,
    output: Output,
) -> int:
    """Run *work* with the client; a signal cancels it.

    Returns:
        The exit status.
    """

    async def run() -> int:
        async with session:
            return await work(session)

    def report_leftovers() -> None:
        left = runtime_of(session).describe_leftovers()
        output.write_note(f"interrupted again: {left or 'no known session is left'}")

    result: int | Interrupted = run_on(
        options.backend, run_until_interrupted, run, report_leftovers
    )
    if isinstance(result, Interrupted):
        output.write_note("interrupted")
        return result.status

    return result


def run_on(backend: str, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Run *work* in a new event loop.

    Raises:
        ConfigurationError: the backend is not installed.
    """
    if backend == "trio" and find_spec("trio") is None:
        raise ConfigurationError("trio is not installed: pip install 'kaleden[trio]'")

    return anyio.run(work, *arguments, backend=backend)


def _read_token(path: str) -> str:
    try:
        if path != "-":
            text = Path(path).read_text(encoding="utf-8")
        else:
            # `sys.stdin` is None if it was closed when the process started.
            text = sys.stdin.read() if sys.stdin else ""
    except UnicodeDecodeError:
        raise ConfigurationError(f"--token-file {path!r} is not UTF-8 text") from None

    if not text.strip():
        raise ConfigurationError(f"--token-file {path!r} is empty")

    return text.strip()
