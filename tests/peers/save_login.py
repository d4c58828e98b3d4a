"""Save a login with canfar. This runs in canfar's environment and reads the login as JSON."""

from __future__ import annotations

import json
import sys

from canfar.models.config import Configuration


def main() -> None:
    configuration = Configuration.model_validate(json.load(sys.stdin))
    configuration.editor.save()


if __name__ == "__main__":
    main()
