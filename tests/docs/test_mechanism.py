"""The execution of examples detects errors in them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sybil")
pytest.importorskip("anycorn")

from docs import examples
from support import PLAIN_BACKENDS

URL = "http://127.0.0.1:1/skaha"

PAGE = """
<!-- invisible-code-block: python
seen = []
-->

```python
import anyio

async def main():
    await anyio.sleep(0)
    return "from a new event loop"
```

:::{tab} async
```python
await anyio.sleep(0)
print("async", session.__class__.__name__)
```
:::
:::{tab} sync
```python
print("sync", session.__class__.__name__)
```
:::

```python
print(anyio.run(main))
```

```output
...sync ...Session
from a new event loop
```

```{code-block} python
:caption: program.py

print("a program")
```

```console
$ python program.py
a program
```

```console
rm -rf shown-only
```
"""


@pytest.fixture(autouse=True)
def connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANFAR_URL", URL)
    monkeypatch.setenv("CANFAR_TOKEN", "token")
    monkeypatch.chdir(tmp_path)


def read(text: str, folder: Path) -> list[examples.Block]:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return examples.read_page(page)


@pytest.mark.parametrize("mode", [*PLAIN_BACKENDS, "sync"])
def test_page_is_executed(mode: str, tmp_path: Path) -> None:
    blocks = read(PAGE, tmp_path)
    assert ["asyncio", "trio", "sync"] == examples.list_modes(blocks)
    assert 8 == len(blocks)
    examples.run_page(examples.select_blocks(blocks, mode), mode)


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",
        "```python\nprint(1)\n```\n```output\n2\n```\n",
        "```python\nprint(1)\n```\n```output\n1\n```\n```output\n1\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo 1\n2\n```\n",
        "```console\n$ true\n$ echo 1 \\\n  2\n1\n```\n",
        ":::{tab} sync\n```python\nawait session.fetch()\n```\n:::\n",
    ],
)
def test_wrong_example_fails(text: str, tmp_path: Path) -> None:
    blocks = read(text, tmp_path)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        examples.run_page(blocks, examples.list_modes(blocks)[0])


def test_traceback_has_line_of_page(tmp_path: Path) -> None:
    blocks = read("# Page\n\nText.\n\n```python\nfirst = 1\nfirst / 0\n```\n", tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        examples.run_page(blocks, "sync")
    last = caught.traceback[-1]
    assert 7 == last.lineno + 1
    assert "page.md" in str(last.path)


def test_page_without_event_loop_is_executed_once(tmp_path: Path) -> None:
    assert ["sync"] == examples.list_modes(read("```python\nprint(1)\n```\n", tmp_path))
    assert ["asyncio", "trio"] == examples.list_modes(read("```python\nawait f()\n```\n", tmp_path))
