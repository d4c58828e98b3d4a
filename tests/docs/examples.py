"""Execution of the examples in a page of the documentation.

The blocks of a page are executed in their order, in one namespace and an empty working directory:

``python``
    Statements may use await. Such a block runs in the page's event loop. Other blocks run in a
    worker thread, where they may start an event loop or use a `kaleden.Session`. A block with a
    caption is a file: it is written under that name, and not executed.
``output``
    The text printed since the last such block; ``...`` matches any text.
``console``
    Lines that begin with ``$ `` are commands, which must succeed. The lines after a command are
    its standard output. A block without a command is not executed.

Blocks in ``:::{tab} async`` are executed on asyncio and on trio, and blocks in ``:::{tab} sync`` in
synchronous code. Blocks outside of tabs are executed in each mode of the page. Hidden blocks are
comments: ``<!-- invisible-code-block: python``, the code, ``-->``.

``CANFAR_URL`` and ``CANFAR_TOKEN`` name an embedded platform, and ``session`` is an open client of
it. A page has to end all sessions that it launches.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stdout
from doctest import ELLIPSIS, Example, OutputChecker
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import anyio
import anyio.to_thread
from attrs import define, field, frozen
from sybil import Document
from sybil.parsers.myst import CodeBlockParser

import kaleden

LANGUAGES = ("python", "output", "console", "ini", "toml", "json", "yaml", "text")
FENCE = re.compile(r"^(?P<colons>:{3,})(?P<title>.*)$", re.MULTILINE)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)\n?((?:(?!\$ ).*\n?)*)", re.MULTILINE)
COMMAND_TIMEOUT = 220
"""Seconds; some commands start a dozen processes, and the machine can be slow."""


@frozen
class Block:
    """One block of code on a page."""

    path: str
    line: int
    language: str
    code: str
    tab: str | None
    file: str | None

    @property
    def location(self) -> str:
        return f"{self.path}, line {self.line}"

    @property
    def is_shown_only(self) -> bool:
        """Whether the block is neither executed, compared nor written."""
        if self.file is not None or self.language in {"python", "output"}:
            return False
        return self.language != "console" or not self.code.startswith("$ ")


def read_page(path: Path) -> list[Block]:
    """Return the blocks of a page to execute."""
    parsers = [CodeBlockParser(language) for language in LANGUAGES]
    document = Document.parse(str(path), *parsers)
    blocks = []
    for example in document.examples():
        options = example.region.lexemes.get("options") or {}
        block = Block(
            path=example.path,
            line=example.line + example.parsed.line_offset + 1,
            language=example.region.lexemes["arguments"],
            code=str(example.parsed),
            tab=find_open_tab(document.text[: example.start]),
            file=options.get("caption"),
        )
        if not block.is_shown_only:
            blocks.append(block)
    return blocks


def find_open_tab(text: str) -> str | None:
    """Return the title of the innermost tab that is open at the end of *text*."""
    stack: list[str] = []
    for fence in FENCE.finditer(text):
        if fence["title"].strip():
            stack.append(fence["title"].strip())
        elif stack:
            stack.pop()
    names = [title.removeprefix("{tab}").strip() for title in stack if title.startswith("{tab}")]
    return names[-1] if names else None


def list_modes(blocks: list[Block]) -> list[str]:
    """Return the modes in which a page is executed: "asyncio", "trio" or "sync"."""
    tabs = {block.tab for block in blocks}
    python = "\n".join(block.code for block in blocks if block.language == "python")
    if "async" in tabs or ("sync" not in tabs and re.search(r"\b(await|async|anyio)\b", python)):
        return ["asyncio", "trio", *(["sync"] if "sync" in tabs else [])]
    return ["sync"]


def select_blocks(blocks: list[Block], mode: str) -> list[Block]:
    """Return the blocks that are executed in a mode."""
    tab = "sync" if mode == "sync" else "async"
    return [block for block in blocks if block.tab in {None, tab}]


@define
class PageRunner:
    """Executes the blocks of one page, one after another."""

    names: dict[str, Any] = field(factory=lambda: {"__name__": "__main__"})
    printed: io.StringIO = field(factory=io.StringIO)

    def compile_block(self, block: Block) -> CodeType:
        # The empty lines make tracebacks show the line numbers of the page.
        code = "\n" * (block.line - 1) + block.code
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled: CodeType = compile(code, block.path, "exec", flags, dont_inherit=True)
        return compiled

    def run_block(self, block: Block) -> CodeType | None:
        """Execute a block; return the code instead if it has to be awaited."""
        if block.file is not None:
            Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "output":
            check_output(block, block.code, self.printed.getvalue())
            self.printed = io.StringIO()
        elif block.language == "console":
            for command, output in COMMAND.findall(block.code):
                check_output(block, output, run_command(block, command))
        else:
            code = self.compile_block(block)
            if code.co_flags & inspect.CO_COROUTINE:
                return code
            with redirect_stdout(self.printed):
                exec(code, self.names)
        return None

    def run_sync(self, blocks: list[Block]) -> None:
        """Execute a page in synchronous code."""
        with kaleden.Session() as session:
            self.names["session"] = session
            for block in blocks:
                assert self.run_block(block) is None, (
                    f"{block.location}: await outside of an async tab"
                )

    async def run_async(self, blocks: list[Block]) -> None:
        """Execute a page in an event loop."""
        async with kaleden.AsyncSession() as session:
            self.names["session"] = session
            for block in blocks:
                code = await anyio.to_thread.run_sync(self.run_block, block)
                if code is not None:
                    with redirect_stdout(self.printed):
                        await eval(code, self.names)


def check_output(block: Block, wanted: str, printed: str) -> None:
    """Check that the printed text matches the text on the page."""
    checker = OutputChecker()
    wanted, printed = (textwrap.dedent(text).strip() + "\n" for text in (wanted, printed))
    if wanted.strip() and not checker.check_output(wanted, printed, ELLIPSIS):
        difference = checker.output_difference(Example("", wanted), printed, ELLIPSIS)
        raise AssertionError(f"{block.location}:\n{difference}")


def run_command(block: Block, command: str) -> str:
    """Run a command of a page, and return its standard output.

    Standard error is ignored, because it depends on the machine: for example, it has a message if
    a clean-up is slow.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "COLUMNS": "100"}
    done = subprocess.run(
        ["sh", "-c", command],
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=COMMAND_TIMEOUT,
    )
    assert done.returncode == 0, f"{block.location}: $ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def find_pages(root: Path) -> Iterator[Path]:
    """Yield the paths of the pages that have blocks to execute."""
    for path in sorted(root.glob("docs/**/*.md")):
        if read_page(path):
            yield path


def run_page(blocks: list[Block], mode: str) -> None:
    """Execute a page in one of its modes."""
    runner = PageRunner()
    if mode == "sync":
        runner.run_sync(blocks)
    else:
        anyio.run(partial(runner.run_async, blocks), backend=mode)
