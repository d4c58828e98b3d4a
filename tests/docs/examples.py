"""The examples of a page of the documentation, and how they are executed.

Blocks of a page are executed in their order, in one namespace, in an empty working directory:

``python``
    A statement may await. Such a block runs in the page's event loop, any other in a thread of its
    own, where it may start an event loop or use a `kaleden.Session`. A block with a caption is a
    file: it is written, under that name, and not executed.
``output``
    What was printed since the last such block, up to ``...`` for what differs each time.
``console``
    Lines that begin with ``$ `` are commands, which must succeed; what follows them is what they
    print on stdout. A block without such a line is only shown.

What stands in ``:::{tab} async`` is executed under asyncio and under trio, what stands in
``:::{tab} sync`` in plain code, and what stands in no tab with both. Hidden blocks are comments:
``<!-- invisible-code-block: python``, the code, ``-->``.

``CANFAR_URL`` and ``CANFAR_TOKEN`` name an embedded platform, ``session`` is an open client of it,
and a page has to leave nothing there.
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
COMMAND_TIMEOUT = 220  # seconds for a command; some start a dozen processes, and machines are slow


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
        """Whether nothing is to be done with it."""
        if self.file is not None or self.language in {"python", "output"}:
            return False
        return self.language != "console" or not self.code.startswith("$ ")


def read_page(path: Path) -> list[Block]:
    """List the blocks of a page that are to be executed."""
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
    """Name the tab that is open after a text."""
    stack: list[str] = []
    for fence in FENCE.finditer(text):
        if fence["title"].strip():
            stack.append(fence["title"].strip())
        elif stack:
            stack.pop()
    names = [title.removeprefix("{tab}").strip() for title in stack if title.startswith("{tab}")]
    return names[-1] if names else None


def list_modes(blocks: list[Block]) -> list[str]:
    """Name the ways in which a page is executed."""
    tabs = {block.tab for block in blocks}
    python = "\n".join(block.code for block in blocks if block.language == "python")
    if "async" in tabs or ("sync" not in tabs and re.search(r"\b(await|async|anyio)\b", python)):
        return ["asyncio", "trio", *(["sync"] if "sync" in tabs else [])]
    return ["sync"]


def select_blocks(blocks: list[Block], mode: str) -> list[Block]:
    """List the blocks that are executed in this way."""
    tab = "sync" if mode == "sync" else "async"
    return [block for block in blocks if block.tab in {None, tab}]


@define
class PageRunner:
    """Executes the blocks of one page, one after the other."""

    names: dict[str, Any] = field(factory=lambda: {"__name__": "__main__"})
    printed: io.StringIO = field(factory=io.StringIO)

    def compile_block(self, block: Block) -> CodeType:
        # A traceback shows the lines of the page.
        code = "\n" * (block.line - 1) + block.code
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        compiled: CodeType = compile(code, block.path, "exec", flags, dont_inherit=True)
        return compiled

    def run_block(self, block: Block) -> CodeType | None:
        """Execute a block, or return what is to be awaited."""
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
        """Execute a page as plain code."""
        with kaleden.Session() as session:
            self.names["session"] = session
            for block in blocks:
                assert self.run_block(block) is None, (
                    f"{block.location}: await in what is no async tab"
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
    """Demand that what was printed is what the page shows."""
    checker = OutputChecker()
    wanted, printed = (textwrap.dedent(text).strip() + "\n" for text in (wanted, printed))
    if wanted.strip() and not checker.check_output(wanted, printed, ELLIPSIS):
        difference = checker.output_difference(Example("", wanted), printed, ELLIPSIS)
        raise AssertionError(f"{block.location}:\n{difference}")


def run_command(block: Block, command: str) -> str:
    """Run a command of a page, and return what it prints.

    What it says of itself on stderr, such as that a clean-up takes long, depends on the machine.
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
    """Name the pages with something to execute."""
    for path in sorted(root.glob("docs/**/*.md")):
        if read_page(path):
            yield path


def run_page(blocks: list[Block], mode: str) -> None:
    """Execute a page in one of its ways."""
    player = PageRunner()
    if mode == "sync":
        player.run_sync(blocks)
    else:
        anyio.run(partial(player.run_async, blocks), backend=mode)
