"""The platform answers as its own OpenAPI document says, whatever it is asked.

No runner carries out what it orders here, so nothing that is made up is ever run.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from kaleden.local import Platform, Settings
from kaleden.local._accounts import Accounts
from kaleden.local._api._app import make_app
from kaleden.local._api._service import Service
from kaleden.local._platform._model import GIB

NOW = 1_790_000_000.0
HOST = {"Host": "127.0.0.1:8080"}
LOGIN = {**HOST, "Authorization": "Bearer secret"}


def make() -> Any:
    accounts = Accounts(lambda: NOW)
    accounts.add("ada")
    accounts.accept_token("secret", "ada")
    platform = Platform(Settings(millicores=64_000, ram=256 * GIB), random.Random(0))
    return make_app(Service(platform, "http://127.0.0.1:8080"), accounts, clock=lambda: NOW)


schema = schemathesis.openapi.from_asgi("/skaha/openapi.json", make(), headers=HOST)


def is_no_crash(_: Any, response: Any, __: Any) -> None:
    """A 500 has the name of a Java exception, as the server's; ours has a sentence of Starlette."""
    assert response.status_code != 500 or "unexpected exception: " in response.text


@pytest.mark.slow
@schema.parametrize()  # type: ignore[untyped-decorator,unused-ignore]
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_it_answers_as_its_document_says(case: Any) -> None:
    case.call_and_validate(
        headers=LOGIN,
        checks=[
            is_no_crash,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
        ],
    )
