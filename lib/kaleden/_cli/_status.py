"""The exit statuses of all commands."""

from __future__ import annotations

from typing import Final

DONE: Final = 0
NOT_ALL: Final = 1
REFUSED: Final = 2
UNREAD: Final = 141
"""As shells have it for a program that SIGPIPE ended."""

EXPLAINED: Final = """\
exit status:
  0    it did all that it was asked
  1    not all: something failed, or sessions may be left
  2    it did not begin: what it was given, or the login, cannot be used; nothing was sent
  130  Ctrl-C; what `run` and `demo` had launched has ended (129 and 143: SIGHUP and SIGTERM)
  141  the reader of its output has gone
"""
