"""The platform's responses conform to its OpenAPI document, for generated requests.

No runner executes the platform's orders here, so generated commands are never run.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("schemathesis")

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks
from starlette.responses import JSONResponse

from kaleden.local import Platform, Settings
from kaleden.local._accounts import Accounts
from kaleden.local._api._app import make_app
from kaleden.local._api._service import Service
from kaleden.local._platform._model import GIB
from local._api.openapi import describe

NOW = 1_790_000_000.0
HOST = {"Host": "127.0.0.1:8080"}
LOGIN = {**HOST, "Authorization": "Bearer secret"}


def make_application() -> Any:
    accounts = Accounts(lambda: NOW)
    accounts.add("ada")
    accounts.accept_token("secret", "ada")
    platform = Platform(Settings(millicores=64_000, ram=256 * GIB), random.Random(0))
    return make_app(Service(platform, "http://127.0.0.1:8080"), accounts, clock=lambda: NOW)


def with_document(application: Any) -> Any:
    """Serve the OpenAPI document beside an application."""
    document = JSONResponse(describe("http://127.0.0.1:8080/skaha"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        is_document = scope.get("path") == "/openapi.json"
        await (document if is_document else application)(scope, receive, send)

    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", with_document(make_application()))


def check_no_crash(_: Any, response: Any, __: Any) -> None:
    """Check that a 500 response is the server's, with a Java exception, not one of Starlette."""
    assert response.status_code != 500 or "unexpected exception: " in response.text


@pytest.mark.slow
@schema.parametrize()  # type: ignore[untyped-decorator,unused-ignore]
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_responses_conform_to_openapi_document(case: Any) -> None:
    case.call_and_validate(
        headers=LOGIN,
        checks=[
            check_no_crash,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
        ],
    )
