"""Save a login as canfar does: run in its environment, with what to save as JSON on its input."""

from __future__ import annotations

import json
import sys

from canfar.models.config import Configuration


def main() -> None:
    configuration = Configuration.model_validate(json.load(sys.stdin))
    configuration.editor.save()


if __name__ == "__main__":
    main()
